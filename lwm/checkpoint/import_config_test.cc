#include "lwm/checkpoint/import_config.h"

#include <gtest/gtest.h>

#include <functional>

#include "lwm/base/error.h"
#include "lwm/io/gguf_source.h"
#include "lwm/io/gguf_writer.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::checkpoint {
namespace {

// The config of a GGUF file with sizes, one tensor and further keys.
config::ModelConfig ConfigWith(const std::function<void(io::GgufKeys&)>& add) {
  const testing_support::TemporaryFolder folder;
  io::GgufKeys keys;
  keys.AddText("general.architecture", "llama");
  for (const auto& [name, value] : {std::pair{"embedding_length", 64},
                                    {"block_count", 2},
                                    {"feed_forward_length", 96},
                                    {"context_length", 256},
                                    {"attention.head_count", 4}})
    keys.AddUnsigned(Cat("llama.", name), static_cast<uint32_t>(value));
  keys.AddFloat("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  add(keys);
  io::GgufWriter writer(folder / "m.gguf", keys,
                        {{"token_embd.weight", {8, 64}, io::GgufType::kF32}});
  const std::vector<float> zeros(8 * 64);
  writer.Write("token_embd.weight", std::as_bytes(std::span(zeros)));
  writer.Finish();
  return *ConfigOfSource(io::GgufSource(folder / "m.gguf"));
}

TEST(ImportConfigTest, GgufKeysOfOtherArithmeticAreRefusedByName) {
  const auto refuses = [](const std::string& key, const std::function<void(io::GgufKeys&)>& add) {
    testing_support::ExpectError([&] { ConfigWith(add); }, ErrorCode::kCorruptData, {key + " is "});
  };
  for (const char* key : {"llama.attention.scale", "llama.attention.clamp_kqv",
                          "llama.attn_logit_softcapping", "llama.final_logit_softcapping",
                          "llama.embedding_scale", "llama.residual_scale", "llama.logit_scale"})
    refuses(key, [&](io::GgufKeys& keys) { keys.AddFloat(key, 12.5f); });
  refuses("llama.attention.sliding_window",
          [](io::GgufKeys& keys) { keys.AddUnsigned("llama.attention.sliding_window", 128); });
  refuses("llama.use_parallel_residual",
          [](io::GgufKeys& keys) { keys.AddFlag("llama.use_parallel_residual", true); });
}

TEST(ImportConfigTest, GgufKeysWithNeutralValuesAreAccepted) {
  const config::ModelConfig config = ConfigWith([](io::GgufKeys& keys) {
    keys.AddFloat("llama.attention.scale", 0.25f);  // 1 / sqrt(16)
    keys.AddFloat("llama.residual_scale", 1);
    keys.AddFloat("llama.logit_scale", 0);
    keys.AddUnsigned("llama.attention.sliding_window", 300);  // of a context of 256
    keys.AddFlag("llama.use_parallel_residual", false);
  });
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.head_dim, 16);
}

}  // namespace
}  // namespace lwm::checkpoint
