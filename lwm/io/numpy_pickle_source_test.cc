#include "lwm/io/numpy_pickle_source.h"

#include <gtest/gtest.h>

#include "lwm/base/file.h"
#include "lwm/io/safetensors_source.h"
#include "lwm/testing/damage.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/read_stored.h"
#include "lwm/testing/source_values.h"

namespace lwm::io {
namespace {

using testing_support::GoldenFolder;

const char* const kForms[] = {
    "frozen_dict_protocol4", "jax_arrays_protocol4", "numpy2_names_protocol2", "numpy_protocol2",
    "numpy_protocol3",       "numpy_protocol4",      "numpy_protocol5"};

void Parse(std::span<const std::byte> bytes) {
  testing_support::ReadStored(ParseNumpyPickle(bytes, "x").tensors);
}

TEST(NumpyPickleTest, EveryFormHoldsTheSameArrays) {
  const auto folder = GoldenFolder("numpy_pickles");
  const SafetensorsSource values(folder / "values.safetensors");
  for (const char* form : kForms) {
    SCOPED_TRACE(form);
    const NumpyPickleSource source(folder / form);
    EXPECT_EQ(source.infos().size(), values.infos().size());
    for (const TensorInfo& info : values.infos())
      testing_support::ExpectSameTensor(source, values, info.name);
  }
}

TEST(NumpyPickleTest, CallOutsideTheArrayMachineryIsRefusedByName) {
  const std::string content = ReadFile(GoldenFolder("numpy_pickles") / "must_be_refused");
  EXPECT_NE(testing_support::RefusalOf(content, Parse).find("builtins.print"), std::string::npos);
}

TEST(NumpyPickleTest, DictsSharedAtEveryLevelAreBounded) {
  // d1 = {a: d0, b: d0}, d2 = {a: d1, b: d1} ...: 2^40 paths in a few bytes.
  std::string text = "\x80\x02}\x94";
  for (char level = 0; level < 28; ++level)
    text += std::string(
                "}(\x8c\x01"
                "ah") +
            level +
            "\x8c\x01"
            "bh" +
            level + "u\x94";
  text += ".";
  EXPECT_NE(testing_support::RefusalOf(text, Parse).find("too many entries"), std::string::npos);
}

}  // namespace
}  // namespace lwm::io
