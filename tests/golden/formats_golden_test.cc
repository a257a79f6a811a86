#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/checkpoint/export.h"
#include "lwm/checkpoint/import.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::model {
namespace {
namespace fs = std::filesystem;

using testing_support::TemporaryFolder;

// A case that is too large for the repository; empty when LWM_GOLDEN does not say where it is.
fs::path LargeCase(const std::string& name) {
  const char* golden = std::getenv("LWM_GOLDEN");
  return golden ? fs::path(golden) / name : fs::path();
}

int RunLwm(const std::string& arguments) {
  return std::system((std::string(std::getenv("LWM_BINARY")) + " " + arguments).c_str());
}

TEST(FormatsGolden, TinyStoriesModelWritesItsKnownText) {
  TemporaryFolder folder;
  const std::string from = testing_support::GoldenFolder("tiny_stories").string();
  const std::string model = folder / "model", text = folder / "text";
  ASSERT_EQ(RunLwm("convert --from " + from + "/stories260K.bin --tokenizer " + from +
                   "/tok512.bin --to " + model),
            0);
  ASSERT_EQ(RunLwm("convert --from " + model + " --to " + model + ".gguf --format gguf"), 0);
  ASSERT_EQ(RunLwm("convert --from " + model + ".gguf --to " + model + "2"), 0);
  const std::string expected = ReadFile(from + "/expected.txt");
  for (const std::string& path : {model, model + "2", from + "/stories260K.gguf"}) {
    ASSERT_EQ(RunLwm("generate --model " + path +
                     " --prompt '' --temperature 0 --max-new-tokens 200 --dtype f32 >" + text),
              0);
    EXPECT_EQ(ReadFile(text).substr(0, expected.size()), expected);
  }
}

void ExpectTensorsOfGguf(const fs::path& folder) {
  const Json tensors = ReadJsonFile(folder / "case.json").at("tensors");
  const auto source = io::OpenTensorSource(folder / "model.gguf");
  EXPECT_EQ(source->infos().size(), tensors.size());
  for (const auto& [name, expected] : tensors.items()) {
    const at::Tensor tensor = checkpoint::ReadTensor(*source, name).to(at::kDouble);
    EXPECT_EQ(source->Encoding(source->IndexOf(name)), expected.at("type").get<std::string>());
    EXPECT_EQ(tensor.abs().max().item<double>(), expected.at("absmax").get<double>()) << name;
    // The reference summed in f64 in another order.
    EXPECT_NEAR(tensor.sum().item<double>(), expected.at("sum").get<double>(), 1e-9) << name;
  }
}

TEST(FormatsGolden, GgufTensorsOfEveryTypeDequantiseAsTheReference) {
  const fs::path golden = LargeCase("hf");
  if (golden.empty()) GTEST_SKIP() << "LWM_GOLDEN is not set";
  int cases = 0;
  for (const auto& entry : fs::directory_iterator(golden)) {
    if (!entry.path().filename().string().starts_with("gguf_")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    ExpectTensorsOfGguf(entry.path());
    ++cases;
  }
  EXPECT_GE(cases, 8);
}

// The published files state no config: what their cases say, as a config.json.
Json ConfigOfCase(const Json& c) {
  Json json = {{"model_type", c.contains("vision_vocab_size") ? "lwm" : "llama"},
               {"rope_theta", c.at("theta")},
               {"max_position_embeddings", 4096},
               {"num_key_value_heads", c.at("num_attention_heads")}};
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "rms_norm_eps", "vision_vocab_size"})
    if (c.contains(key)) json[key] = c.at(key);
  return json;
}

void ExpectStreamSurvives(const fs::path& stream, const Json& config) {
  TemporaryFolder folder;
  WriteFileAtomically(folder / "config.json", config.dump());
  const auto source = checkpoint::OpenModel(stream, folder / "config.json");
  checkpoint::SaveModelDirectory(source->config(),
                                 [&](const TensorSpec& spec) { return source->Read(spec); },
                                 folder / "hf", {});
  const auto hf = checkpoint::OpenModel(folder / "hf");
  checkpoint::SaveLwmCheckpoint(
      hf->config(), [&](const TensorSpec& spec) { return hf->Read(spec); }, folder / "jax",
      at::kBFloat16);
  EXPECT_TRUE(ReadFile(folder / "jax") == ReadFile(stream)) << stream;
}

TEST(FormatsGolden, PublishedStreamsSurviveTheWayThroughHuggingFaceByteForByte) {
  const fs::path golden = LargeCase("lwm");
  if (golden.empty()) GTEST_SKIP() << "LWM_GOLDEN is not set";
  const Json text = ReadJsonFile(golden / "text_ckpt/case.json").at("config");
  ExpectStreamSurvives(golden / "text_ckpt/bf16_scan/streaming_params", ConfigOfCase(text));
  const Json vision = ReadJsonFile(golden / "vision_ckpt/case.json").at("config");
  ExpectStreamSurvives(golden / "vision_ckpt/streaming_params", ConfigOfCase(vision));
}

}  // namespace
}  // namespace lwm::model
