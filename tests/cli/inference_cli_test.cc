// generate, logits and score as scripts call them: what is on stdout, exit codes, messages.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "lwm/base/json.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/temporary_folder.h"
#include "tests/cli/run_program.h"

namespace lwm {
namespace {

using testing_support::ProgramResult;
using testing_support::RunLwm;

class InferenceCliTest : public testing::Test {
 protected:
  // Saves the tensors and runs `lwm logits` on them.
  ProgramResult Logits(const checkpoint::NamedTensors& tensors,
                       const std::string& flags = "") const {
    checkpoint::SaveTensors(folder_.path() / "in.safetensors", tensors);
    return RunLwm("logits --dtype f32 --model " + model_ + " --input " + Path("in.safetensors") +
                  " --output " + Path("out.safetensors") + " " + flags);
  }

  std::string Path(const std::string& name) const { return (folder_.path() / name).string(); }

  testing_support::TemporaryFolder folder_;
  std::string model_ = (testing_support::GoldenFolder("llama_e_rope_dynamic") / "model").string();
};

TEST_F(InferenceCliTest, GreedyIdsAreAJsonArrayOnStdoutAndStatisticsOnStderr) {
  const Json greedy =
      ReadJsonFile(testing_support::GoldenFolder("llama_e_rope_dynamic") / "case.json")["greedy"];
  std::string ids;
  for (const Json& id : greedy["prompt"]) ids += (ids.empty() ? "" : ",") + id.dump();
  const ProgramResult run = RunLwm(
      "generate --dtype f32 --temperature 0 --ignore-eos --max-new-tokens 32 "
      "--model " +
      model_ + " --ids " + ids);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(ParseJson(run.out, "stdout"), greedy["tokens"]);
  for (const char* part : {"prefill 8 tokens", "decode 32 tokens", "tokens/s", "peak memory"})
    EXPECT_NE(run.err.find(part), std::string::npos) << run.err;
}

TEST_F(InferenceCliTest, LogitsWritesWhatTheContractNames) {
  const at::Tensor ids = at::tensor({1, 7, 9, 4}, at::kInt).view({1, 4});
  EXPECT_EQ(Logits({{"input_ids", ids}}).exit_code, 0);
  auto out = checkpoint::LoadTensors(Path("out.safetensors"));
  EXPECT_EQ(out.size(), 1u);
  EXPECT_EQ(out.at("logits").sizes(), at::IntArrayRef({1, 4, 128}));
  const at::Tensor labels = at::tensor({7, 9, -100, 2}, at::kInt).view({1, 4});
  EXPECT_EQ(Logits({{"input_ids", ids}, {"labels", labels}}, "--gradients").exit_code, 0);
  out = checkpoint::LoadTensors(Path("out.safetensors"));
  const at::Tensor log_p_TV = at::log_softmax(out.at("logits")[0].to(at::kDouble), 1);
  const double want = -(log_p_TV[0][7] + log_p_TV[1][9] + log_p_TV[3][2]).item<double>() / 3;
  EXPECT_NEAR(out.at("loss").item<float>(), want, 1e-5);
  EXPECT_NEAR(out.at("text_loss").item<float>(), want, 1e-5);
  EXPECT_EQ(out.at("vision_loss").item<float>(), 0);
  EXPECT_EQ(out.at("grad.model.layers.1.mlp.up_proj.weight").sizes(), at::IntArrayRef({96, 64}));
}

TEST_F(InferenceCliTest, ARecurringSegmentIdIsAUsageErrorAndLeavesNoOutput) {
  const at::Tensor ids = at::tensor({1, 7, 9, 4}, at::kInt).view({1, 4});
  const at::Tensor segments = at::tensor({0, 1, 1, 0}, at::kInt).view({1, 4});
  const ProgramResult run = Logits({{"input_ids", ids}, {"segment_ids", segments}});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.err.find("segment id 0 comes back"), std::string::npos) << run.err;
  EXPECT_FALSE(std::filesystem::exists(Path("out.safetensors")));
}

TEST_F(InferenceCliTest, ScoreOfATokenFileIsTheMeanOfItsTargets) {
  const at::Tensor ids = at::tensor({1, 7, 9, 4, 5, 1, 2, 3}, at::kInt).view({2, 4});
  const at::Tensor labels = at::tensor({7, 9, 4, -100, 1, 2, 3, -100}, at::kInt).view({2, 4});
  ASSERT_EQ(Logits({{"input_ids", ids}, {"labels", labels}}).exit_code, 0);
  const float want = checkpoint::LoadTensors(Path("out.safetensors")).at("loss").item<float>();
  checkpoint::SaveTensors(Path("in.safetensors"), {{"input_ids", ids}});
  const ProgramResult run =
      RunLwm("score --dtype f32 --json --model " + model_ + " --input " + Path("in.safetensors"));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  const Json score = ParseJson(run.out, "stdout");
  EXPECT_EQ(score["tokens"], 6);
  EXPECT_NEAR(score["loss"].get<double>(), want, 1e-5);
  EXPECT_EQ(score["buckets"][0]["to"], 1024);
  EXPECT_EQ(
      RunLwm("score --length 4 --model " + model_ + " --input " + Path("in.safetensors")).exit_code,
      2);
}

std::vector<std::string> Keys(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

TEST_F(InferenceCliTest, BenchPrefillReadsPromptsAndBenchDecodeTokensAtDepths) {
  const std::vector<std::string> common = {"depths",   "kv",    "matmul_gflops", "memory_gb_per_s",
                                           "peak_gib", "ranks", "threads"};
  const std::string flags = " --json --dtype f32 --model " + model_;
  const ProgramResult prefill = RunLwm("bench prefill --depths 5 --prefill 16,32" + flags);
  ASSERT_EQ(prefill.exit_code, 0) << prefill.err;
  const Json prompts = ParseJson(prefill.out, "stdout");
  EXPECT_EQ(Keys(prompts), common);
  ASSERT_EQ(prompts["depths"].size(), 2u);
  for (const Json& row : prompts["depths"]) {
    EXPECT_EQ(Keys(row),
              (std::vector<std::string>{"depth", "prefill_tokens", "prefill_tokens_per_s"}));
    EXPECT_EQ(row["depth"], 5);
    EXPECT_GT(row["prefill_tokens_per_s"], 0);
  }
  EXPECT_EQ(prompts["depths"][1]["prefill_tokens"], 32);

  const ProgramResult decode = RunLwm("bench decode --depths 0,40 --prefill 0 --decode 3" + flags);
  ASSERT_EQ(decode.exit_code, 0) << decode.err;
  const Json depths = ParseJson(decode.out, "stdout")["depths"];
  ASSERT_EQ(depths.size(), 2u);
  for (const Json& row : depths) {
    EXPECT_EQ(Keys(row), (std::vector<std::string>{"decode_tokens", "decode_tokens_per_s", "depth",
                                                   "kv_gb_per_s"}));
    EXPECT_GT(row["decode_tokens_per_s"], 0);
  }
  EXPECT_EQ(depths[0]["kv_gb_per_s"], 0);  // nothing in the cache
  EXPECT_GT(depths[1]["kv_gb_per_s"], 0);
}

TEST_F(InferenceCliTest, WrongUseEndsWithOneLineAndTheRightCode) {
  const auto expect = [&](const std::string& arguments, int exit_code, const std::string& message) {
    const ProgramResult run = RunLwm(arguments);
    EXPECT_EQ(run.exit_code, exit_code) << arguments;
    EXPECT_NE(run.err.find(message), std::string::npos) << run.err;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    EXPECT_EQ(run.out, "");
  };
  const std::string model = "generate --model " + model_;
  expect(model + " --ids 1,128", 2, "id 128 is outside the vocabulary of 128");
  expect(model + " --ids 1 --temperature -1", 2, "temperature is -1");
  expect(model + " --ids 1 --prompt a", 2, "--prompt");
  expect(model + " --prompt a", 1, "tokenizer");
  expect("generate --model /nowhere --ids 1", 1, "/nowhere");
  expect("generate", 2, "--model is required; see lwm generate --help");
  expect("vqgan", 2, "see lwm vqgan --help");
  expect("vqgan encode --modle x", 2, "unknown argument '--modle'; did you mean '--model'?");
  expect("bench decode --zzzzzzzz", 2, "see lwm bench decode --help");
  const std::string full =
      (testing_support::GoldenFolder("llama_b_gqa_bf16_sharded") / "model").string();
  std::string ids = "1";
  for (int i = 0; i < 256; ++i) ids += ",1";
  expect("generate --model " + full + " --ids " + ids, 1, "the prompt has 257 tokens");
}

}  // namespace
}  // namespace lwm
