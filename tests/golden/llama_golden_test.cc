// LLaMA checkpoints and results of Hugging Face's transformers (llama_*) and of the published LWM
// code (text_ckpt). With LWM_GOLDEN set, larger cases from there are read too.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/infer/generation.h"
#include "lwm/infer/token_batch.h"
#include "lwm/model/decoder.h"
#include "lwm/testing/golden_folder.h"

namespace lwm::infer {
namespace {
namespace fs = std::filesystem;

using Tensors = std::map<std::string, at::Tensor>;

struct LlamaCase {
  std::string name;
  Json settings;
  Tensors golden;
  model::ResidentWeights weights;
};

std::vector<fs::path> LlamaFolders() {
  std::vector<fs::path> folders;
  const auto add = [&](const fs::path& root) {
    for (const auto& entry : fs::directory_iterator(root))
      if (entry.is_directory() && entry.path().filename().string().starts_with("llama_"))
        folders.push_back(entry.path());
  };
  if (const char* outside = std::getenv("LWM_GOLDEN"))
    add(fs::path(outside) / "hf");
  else
    add(testing_support::GoldenFolder(""));
  std::sort(folders.begin(), folders.end());
  return folders;
}

std::vector<LlamaCase>& LlamaCases() {
  static std::vector<LlamaCase> cases = [] {
    std::vector<LlamaCase> all;
    for (const fs::path& folder : LlamaFolders())
      all.push_back({folder.filename().string(), ReadJsonFile(folder / "case.json"),
                     checkpoint::LoadTensors(folder / "golden.safetensors"),
                     checkpoint::LoadModel(folder / "model", at::kFloat)});
    return all;
  }();
  return cases;
}

double LargestDifference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a - b).abs().max().item<double>();
}

at::Tensor AllLogits(model::ResidentWeights& weights, const TokenBatch& batch) {
  const at::Tensor hidden_BTD =
      model::DecoderHidden(weights.config(), weights, DecoderInputOf(batch, nullptr), {});
  return at::linear(hidden_BTD, weights.NonLayer().head_VD.dense());
}

// The golden labels are shifted inside the loss, ours are the target of their own position.
TokenBatch BatchOf(const LlamaCase& golden) {
  const at::Tensor& shifted_BT = golden.golden.at("labels");
  const int64_t tokens = shifted_BT.size(1);
  at::Tensor labels_BT = at::full_like(shifted_BT, -100);
  labels_BT.slice(1, 0, tokens - 1).copy_(shifted_BT.slice(1, 1));
  return MakeTokenBatch({{"input_ids", golden.golden.at("input_ids")}, {"labels", labels_BT}},
                        golden.weights.config(), golden.name);
}

TEST(LlamaGoldenTest, ThereIsACaseOfEveryKind) { EXPECT_GE(LlamaCases().size(), 7u); }

TEST(LlamaGoldenTest, LogitsAndLossAreThoseOfHuggingFace) {
  for (LlamaCase& golden : LlamaCases()) {
    SCOPED_TRACE(golden.name);
    const TokenBatch batch = BatchOf(golden);
    EXPECT_LE(LargestDifference(AllLogits(golden.weights, batch), golden.golden.at("logits")),
              2.4e-5);
    const model::DecoderInput input = DecoderInputOf(batch, nullptr);
    const model::DecoderLoss loss = model::DecoderForward(
        golden.weights.config(), golden.weights, input, DecoderTargetsOf(batch, input), {});
    EXPECT_NEAR(loss.text_loss, golden.golden.at("loss").item<float>(), 2e-6);
    const at::Tensor nll_BT = golden.golden.at("token_nll");
    const at::Tensor wanted_BT = batch.target_BT.slice(1, 0, nll_BT.size(1)).ne(-100);
    EXPECT_LE(LargestDifference(loss.nll_BT.slice(1, 0, nll_BT.size(1)).masked_select(wanted_BT),
                                nll_BT.masked_select(wanted_BT)),
              2.4e-5);
  }
}

TEST(LlamaGoldenTest, GradientsOfEveryWeightAreThoseOfHuggingFace) {
  int64_t compared = 0;
  for (LlamaCase& golden : LlamaCases()) {
    if (!golden.golden.contains("grad.model.norm.weight")) continue;
    SCOPED_TRACE(golden.name);
    const TokenBatch batch = BatchOf(golden);
    const model::DecoderInput input = DecoderInputOf(batch, nullptr);
    golden.weights.EnableGradients();
    model::DecoderForwardBackward(golden.weights.config(), golden.weights, input,
                                  DecoderTargetsOf(batch, input), 1, 1, {});
    golden.weights.Visit([&](const model::TensorSpec& spec, at::Tensor&, at::Tensor& gradient) {
      const at::Tensor& want = golden.golden.at("grad." + spec.name);
      EXPECT_LE(LargestDifference(gradient, want), 5e-6 * want.abs().max().item<double>())
          << spec.name;
      ++compared;
    });
  }
  EXPECT_GE(compared, 21);
}

TEST(LlamaGoldenTest, GreedyTokensDecodedWithACacheAreEqual) {
  for (LlamaCase& golden : LlamaCases()) {
    const Json& greedy = golden.settings["greedy"];
    if (!greedy.is_object() || !greedy.contains("tokens")) continue;
    SCOPED_TRACE(golden.name);
    const auto want = greedy["tokens"].get<std::vector<int64_t>>();
    GenerateRequest request;
    for (const int64_t id : greedy["prompt"].get<std::vector<int64_t>>())
      request.prompt.Add(id, false);
    request.max_new_tokens = static_cast<int64_t>(want.size());
    request.text.temperature = 0;
    request.ignore_eos = true;
    const DecodeModel model(golden.weights.config(), golden.weights);
    EXPECT_EQ(Generate(model, {request}, {})[0].added.id_n, want);
  }
}

// Row 1 begins after five pad tokens; its logits are compared as the cache grows to every length.
TEST(LlamaGoldenTest, ALeftPaddedRowHasTheLogitsOfHuggingFace) {
  int64_t compared = 0;
  for (LlamaCase& golden : LlamaCases()) {
    // Dynamic frequencies depend on the length that is read at once.
    if (!golden.golden.contains("leftpad.logits_row1") ||
        golden.weights.config().rope_scaling.type == config::RopeScaling::Type::kDynamic)
      continue;
    SCOPED_TRACE(golden.name);
    const DecodeModel model(golden.weights.config(), golden.weights);
    const at::Tensor id_BT = golden.golden.at("leftpad.input_ids");
    const at::Tensor begin_B = golden.golden.at("leftpad.attention_mask").eq(0).sum(1).to(at::kInt);
    const int64_t begin = begin_B[1].item<int32_t>();
    ASSERT_EQ(begin, 5);
    KvCache cache(golden.weights.config(), 2, id_BT.size(1), at::kFloat);
    cache.SetBegin(begin_B);
    for (int64_t end = begin + 1, from = 0; end <= id_BT.size(1); from = end++) {
      const at::Tensor logits_BV = model.Read({id_BT.slice(1, from, end), {}}, Head::kText, cache);
      EXPECT_LE(
          LargestDifference(logits_BV[1], golden.golden.at("leftpad.logits_row1")[end - 1 - begin]),
          2.4e-5)
          << end;
      ++compared;
    }
  }
  EXPECT_GE(compared, 20);
}

class TextCheckpointGoldenTest : public testing::Test {
 protected:
  const fs::path folder_ = testing_support::GoldenFolder("text_ckpt");
  const Json settings_ = ReadJsonFile(folder_ / "case.json");
  model::ResidentWeights weights_ = checkpoint::LoadModel(folder_ / "streaming_params", at::kFloat);
};

TEST_F(TextCheckpointGoldenTest, PackedRowsGiveTheLogitsAndTheLossOfPaddedOnes) {
  const Tensors golden = checkpoint::LoadTensors(folder_ / "packing.safetensors");
  const at::Tensor weight_BT = golden.at("token_weights");
  const TokenBatch batch =
      MakeTokenBatch({{"input_ids", golden.at("input_ids")},
                      {"segment_ids", golden.at("segment_ids")},
                      {"labels", golden.at("target_ids").masked_fill(weight_BT.le(0), -100)},
                      {"loss_weights", weight_BT}},
                     weights_.config(), "packing");
  const model::DecoderInput input = DecoderInputOf(batch, nullptr);
  EXPECT_TRUE(at::equal(input.position_BT, golden.at("position_ids")));
  const at::Tensor odd_BTV = AllLogits(weights_, batch).slice(1, 1, 48, 2);
  EXPECT_LE(LargestDifference(odd_BTV, golden.at("logits_odd_positions")), 2.4e-5);
  weights_.EnableGradients();
  const model::DecoderLoss loss = model::DecoderForwardBackward(
      weights_.config(), weights_, input, DecoderTargetsOf(batch, input), 1, 1, {});
  EXPECT_NEAR(loss.text_loss, settings_["packing"]["loss_padded"].get<double>(), 2e-6);

  const at::Tensor want_LD = golden.at("grad/transformer/h/scan_decoder/ffn_norm/kernel");
  const at::Tensor want_LDG = golden.at("grad/transformer/h/scan_decoder/attention/wv/kernel");
  for (int64_t l = 0; l < want_LD.size(0); ++l) {
    const model::LayerGradients& got = weights_.GradientsOfLayer(l);
    EXPECT_LE(LargestDifference(got.ffn_norm_D, want_LD[l]),
              1e-5 * want_LD[l].abs().max().item<double>());
    EXPECT_LE(LargestDifference(got.v_GKxD.t(), want_LDG[l]),
              1e-5 * want_LDG[l].abs().max().item<double>());
  }
}

TEST_F(TextCheckpointGoldenTest, LeftPaddedPromptsDecodeToTheSameTokensAndLogits) {
  const Tensors golden = checkpoint::LoadTensors(folder_ / "greedy.safetensors");
  const at::Tensor prompt_BT = golden.at("prompt_ids").to(at::kLong);
  const at::Tensor new_BT = golden.at("new_ids").to(at::kLong);
  const DecodeModel model(weights_.config(), weights_);
  KvCache cache(weights_.config(), prompt_BT.size(0), prompt_BT.size(1) + new_BT.size(1),
                at::kFloat);
  cache.SetBegin(golden.at("attention_mask").eq(0).sum(1).to(at::kInt));
  at::Tensor read_BT = prompt_BT;
  for (int64_t step = 0; step < new_BT.size(1); ++step) {
    const at::Tensor logits_BV = model.Read({read_BT, {}}, Head::kText, cache);
    EXPECT_LE(LargestDifference(logits_BV, golden.at("step_logits").select(1, step)), 2.4e-5)
        << step;
    read_BT = logits_BV.argmax(1).unsqueeze(1);
    EXPECT_TRUE(at::equal(read_BT, new_BT.slice(1, step, step + 1))) << step;
  }
}

}  // namespace
}  // namespace lwm::infer
