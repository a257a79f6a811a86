// SmolLM2-135M-Instruct, a small current model (tied, grouped queries, Q4_1 and Q8_0, byte-level
// BPE), against transformers on the same dequantised weights. Goldens come from LWM_GOLDEN, the
// model from LWM_SMOLLM2 or from where scripts/fetch-smollm2 puts it.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/data/tokenizer.h"
#include "lwm/infer/generation.h"
#include "lwm/infer/token_batch.h"
#include "lwm/model/decoder.h"

namespace lwm::infer {
namespace {
namespace fs = std::filesystem;

fs::path ModelFile() {
  if (const char* file = std::getenv("LWM_SMOLLM2")) return file;
  const char* source = std::getenv("LWM_SOURCE_DIR");
  const fs::path folder = fs::path(source ? source : ".") / "models/smollm2";
  if (!fs::exists(folder)) return {};
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".gguf") return entry.path();
  return {};
}

fs::path GoldenFolder() {
  const char* outside = std::getenv("LWM_GOLDEN");
  return outside ? fs::path(outside) / "hf" / "smollm2_135m_instruct_q4_1" : fs::path();
}

struct SmolLm2 {
  Json settings;
  std::map<std::string, at::Tensor> golden;
  std::unique_ptr<data::Tokenizer> tokenizer;
  model::ResidentWeights weights;
};

class SmolLm2GoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    if (GoldenFolder().empty() || ModelFile().empty())
      GTEST_SKIP() << "wants LWM_GOLDEN, and the model (scripts/fetch-smollm2)";
  }

  static SmolLm2& Model() {
    static SmolLm2 model = {ReadJsonFile(GoldenFolder() / "case.json"),
                            checkpoint::LoadTensors(GoldenFolder() / "golden.safetensors"),
                            data::OpenTokenizer(ModelFile()),
                            checkpoint::LoadModel(ModelFile(), at::kFloat)};
    return model;
  }

  static const at::Tensor& Golden(size_t prompt, const std::string& name) {
    return Model().golden.at("prompt" + std::to_string(prompt) + "." + name);
  }
};

double LargestDifference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a - b).abs().max().item<double>();
}

TEST_F(SmolLm2GoldenTest, TextsAndPromptsHaveTheIdsOfTheReference) {
  const data::Tokenizer& tokenizer = *Model().tokenizer;
  EXPECT_FALSE(tokenizer.begins_with_bos());
  using Ids = std::vector<int32_t>;
  const Json vectors = ReadJsonFile(GoldenFolder() / "tokenizer.json").at("vectors");
  for (const Json& vector : vectors) {
    const auto text = vector.at("text").get<std::string>();
    const Json& parsed = vector.at("ids_parse_special");
    EXPECT_EQ(tokenizer.Encode(text), vector.at("ids").get<Ids>()) << text;
    EXPECT_EQ(data::EncodeWithSpecialTokens(tokenizer, text),
              (parsed.is_array() ? parsed : vector.at("ids")).get<Ids>())
        << text;
  }
  const Json& prompts = Model().settings["prompts"];
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto text = prompts[i].at("text").get<std::string>();
    const Ids ids = prompts[i].at("parse_special").get<bool>()
                        ? data::EncodeWithSpecialTokens(tokenizer, text)
                        : tokenizer.Encode(text);
    EXPECT_TRUE(at::equal(at::tensor(ids, at::kInt), Golden(i, "input_ids"))) << text;
  }
}

// Decoding with a cache for the logits, the training pass for the loss of every token.
TEST_F(SmolLm2GoldenTest, LogitsTopTenAndLossesAreThoseOfTheReference) {
  SmolLm2& smol = Model();
  const DecodeModel model(smol.weights.config(), smol.weights);
  const Json& prompts = smol.settings["prompts"];
  ASSERT_GE(prompts.size(), 5u);
  for (size_t i = 0; i < prompts.size(); ++i) {
    SCOPED_TRACE(i);
    const at::Tensor id_BT = Golden(i, "input_ids").to(at::kLong).unsqueeze(0);
    const int64_t tokens = id_BT.size(1);
    KvCache cache(smol.weights.config(), 1, tokens, at::kFloat);
    const at::Tensor logits_V = model.Read({id_BT, {}}, Head::kText, cache)[0];
    EXPECT_LE(LargestDifference(logits_V, Golden(i, "last_logits")), 1e-3);
    EXPECT_TRUE(
        at::equal(std::get<1>(logits_V.topk(10)),
                  at::tensor(prompts[i].at("top10_ids").get<std::vector<int64_t>>(), at::kLong)));

    at::Tensor label_BT = at::full_like(id_BT, -100);
    label_BT.slice(1, 0, tokens - 1).copy_(id_BT.slice(1, 1));
    const TokenBatch batch = MakeTokenBatch({{"input_ids", id_BT}, {"labels", label_BT}},
                                            smol.weights.config(), "prompt");
    const model::DecoderInput input = DecoderInputOf(batch, nullptr);
    const model::DecoderLoss loss = model::DecoderForward(
        smol.weights.config(), smol.weights, input, DecoderTargetsOf(batch, input), {});
    EXPECT_LE(LargestDifference(loss.nll_BT[0].slice(0, 0, tokens - 1), Golden(i, "token_nll")),
              1e-3);
  }
}

TEST_F(SmolLm2GoldenTest, GreedyTokensAreEqual) {
  SmolLm2& smol = Model();
  const DecodeModel model(smol.weights.config(), smol.weights);
  int compared = 0;
  const Json& prompts = smol.settings["prompts"];
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (!prompts[i].contains("greedy")) continue;
    SCOPED_TRACE(i);
    const auto want = prompts[i]["greedy"]["tokens"].get<std::vector<int64_t>>();
    const at::Tensor id_T = Golden(i, "input_ids").to(at::kLong).contiguous();
    GenerateRequest request;
    for (int64_t t = 0; t < id_T.numel(); ++t)
      request.prompt.Add(id_T.const_data_ptr<int64_t>()[t], false);
    request.max_new_tokens = static_cast<int64_t>(want.size());
    request.text.temperature = 0;
    request.ignore_eos = true;
    EXPECT_EQ(Generate(model, {request}, {})[0].added.id_n, want);
    ++compared;
  }
  EXPECT_GE(compared, 3);
}

}  // namespace
}  // namespace lwm::infer
