#include "lwm/io/llama2c_source.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <string>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {

using testing_support::TemporaryFolder;

std::string Stories() {
  return ReadFile(testing_support::GoldenFolder("tiny_stories") / "stories260K.bin");
}

// "" when the bytes open as a llama2.c model whose every weight can be read.
std::string RefusalOf(const std::string& content, const std::filesystem::path& file) {
  std::ofstream(file, std::ios::binary) << content;
  try {
    const auto source = OpenTensorSource(file);
    EXPECT_EQ(source->format(), "llama2c");
    for (const TensorInfo& info : source->infos()) {
      std::string bytes(TensorBytes(info), '\0');
      source->Read(info.name, std::as_writable_bytes(std::span(bytes)));
    }
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData) << error.what();
    EXPECT_NE(std::string(error.what()).find(file.string()), std::string::npos) << error.what();
    return error.what();
  }
}

// The file has no magic number and no names: its size must be exactly what its header says.
TEST(Llama2cSourceTest, EveryLieInTheHeaderIsRefused) {
  const TemporaryFolder folder;
  const std::string whole = Stories();
  int variants = 0;
  for (size_t field = 0; field < 7; ++field) {
    int32_t truth = 0;
    std::memcpy(&truth, whole.data() + 4 * field, 4);
    for (const int32_t lie : {0, -1, 1, 2, truth - 1, truth + 1, truth * 2, truth * 3, 1 << 20,
                              1 << 30, INT32_MAX, INT32_MIN, 0x01000000, -truth * 2}) {
      // Heads do not change the size as long as they divide the width.
      if (lie == truth || (field == 3 && lie > 0 && lie <= 64) || (field == 5 && lie == -truth))
        continue;
      std::string damaged = whole;
      std::memcpy(damaged.data() + 4 * field, &lie, 4);
      EXPECT_NE(RefusalOf(damaged, folder / "m.bin"), "") << "field " << field << ": " << lie;
      ++variants;
    }
  }
  EXPECT_GE(variants, 80);
}

}  // namespace
}  // namespace lwm::io
