#include "lwm/io/unwrapped_source.h"

#include <gtest/gtest.h>

#include <vector>

#include "lwm/base/error.h"
#include "lwm/io/safetensors.h"
#include "lwm/io/safetensors_source.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/source_values.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {

using Names = std::vector<std::string>;

// A file whose i-th tensor holds the number i.
std::unique_ptr<TensorSource> SourceOf(const std::filesystem::path& file, const Names& names) {
  std::vector<TensorInfo> infos;
  for (const std::string& name : names) infos.push_back({name, DType::kF32, {1}});
  SafetensorsWriter writer(file, infos);
  for (size_t i = 0; i < names.size(); ++i) {
    const float value = static_cast<float>(i);
    writer.Write(names[i], std::as_bytes(std::span(&value, 1)));
  }
  writer.Finish();
  return std::make_unique<SafetensorsSource>(file);
}

class UnwrappedSourceTest : public testing::Test {
 protected:
  // Tensors `names` are then called `expected`; "" is left out.
  void ExpectNames(const Names& names, const Names& expected, const std::string& said) {
    const std::string file = folder_ / ("f" + std::to_string(++files_));
    testing::internal::CaptureStderr();
    const auto source = Unwrapped(SourceOf(file, names));
    const std::string note = testing::internal::GetCapturedStderr();
    EXPECT_EQ(note, said.empty() ? "" : "note: " + file + ": " + said + "\n");
    size_t present = 0;
    for (size_t i = 0; i < names.size(); ++i) {
      if (expected[i].empty()) continue;
      ++present;
      ASSERT_TRUE(source->contains(expected[i])) << expected[i];
      EXPECT_EQ(testing_support::ValuesOf(*source, expected[i]),
                std::vector<double>{static_cast<double>(i)});
      const size_t index = source->IndexOf(expected[i]);
      EXPECT_EQ(source->Encoding(index), "F32");
      EXPECT_EQ(source->StoredBytes(index), 4u);
      float viewed = -1;
      ASSERT_EQ(source->View(index).size(), sizeof(viewed));
      std::memcpy(&viewed, source->View(index).data(), sizeof(viewed));
      EXPECT_EQ(viewed, static_cast<float>(i));
      source->Forget(index);
    }
    EXPECT_EQ(source->infos().size(), present);
  }

  testing_support::TemporaryFolder folder_;
  int files_ = 0;
};

TEST_F(UnwrappedSourceTest, PlainNamesStayAsTheyAre) {
  const Names names = {"model.embed_tokens.weight", "lm_head.weight", "modules.x", "a.modular.b"};
  ExpectNames(names, names, "");
}

TEST_F(UnwrappedSourceTest, WrappersAreTakenOffWhereverTheyStand) {
  const Names plain = {"model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"};
  ExpectNames(
      {"_orig_mod.model.embed_tokens.weight", "_orig_mod.model.layers.0.mlp.up_proj.weight"}, plain,
      "took the prefix \"_orig_mod.\" off the names of its tensors");
  ExpectNames({"module.model.embed_tokens.weight", "module.model.layers.0.mlp.up_proj.weight"},
              plain, "took the prefix \"module.\" off the names of its tensors");
  ExpectNames(
      {"module._orig_mod.model.embed_tokens.weight",
       "module._orig_mod.model.layers.0._fsdp_wrapped_module.mlp.up_proj.weight"},
      plain,
      "took the prefix \"_orig_mod.\", \"module.\", \"_fsdp_wrapped_module.\" off the names "
      "of its tensors");
  ExpectNames({"model.embed_tokens.weight", "model.layers.0._orig_mod.mlp.up_proj.weight"}, plain,
              "took the prefix \"_orig_mod.\" off the names of its tensors");
}

TEST_F(UnwrappedSourceTest, PrefixThatTheModelSharesIsTakenOff) {
  ExpectNames({"base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"},
              {"model.embed_tokens.weight", "lm_head.weight"},
              "took the prefix \"base_model.model.\" off the names of its tensors");
  ExpectNames({"state_dict.model.model.embed_tokens.weight", "state_dict.model.lm_head.weight",
               "optimizer.state.0.exp_avg", "state_dict.other"},
              {"model.embed_tokens.weight", "lm_head.weight", "", "state_dict.other"},
              "took the prefix \"state_dict.model.\" off the names of its tensors");
  ExpectNames({"vq.quantize.embedding.weight", "vq.encoder.conv_in.weight"},
              {"quantize.embedding.weight", "encoder.conv_in.weight"},
              "took the prefix \"vq.\" off the names of its tensors");
}

TEST_F(UnwrappedSourceTest, TwoModelsInOneFileAreNotMixed) {
  const Names names = {"a.model.embed_tokens.weight", "b.model.embed_tokens.weight"};
  ExpectNames(names, names, "");
}

TEST_F(UnwrappedSourceTest, InnerModelGetsItsPrefixBack) {
  ExpectNames({"embed_tokens.weight", "layers.0.mlp.up_proj.weight", "lm_head.weight"},
              {"model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight"},
              "put \"model.\" before them");
}

TEST_F(UnwrappedSourceTest, NamesThatBecomeTheSameAreRefused) {
  testing_support::ExpectError(
      [&] {
        Unwrapped(SourceOf(folder_ / "f", {"module.norm.weight", "norm.weight"}));
      },
      ErrorCode::kCorruptData, {"norm.weight appears twice"});
}

}  // namespace
}  // namespace lwm::io
