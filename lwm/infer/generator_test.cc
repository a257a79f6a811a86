#include "lwm/infer/generator.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/model/decoder.h"
#include "lwm/testing/tiny_model.h"

namespace lwm::infer {
namespace {

using testing_support::TinyConfig;
using testing_support::TinyWeights;

const std::vector<int64_t> kPrompt = {1, 5, 9, 2, 40};
bool GoOn(int64_t) { return true; }

GenerateOptions Greedy(int64_t max_new_tokens) {
  GenerateOptions options;
  options.max_new_tokens = max_new_tokens;
  options.sampling.temperature = 0;
  options.ignore_eos = true;
  return options;
}

// Greedy continuation that computes everything anew for each token.
std::vector<int64_t> GreedyWithoutCache(const config::ModelConfig& config,
                                        model::WeightStore& weights, int64_t count,
                                        double repetition_penalty = 1) {
  std::vector<int64_t> ids = kPrompt;
  for (int64_t i = 0; i < count; ++i) {
    const auto tokens = static_cast<int64_t>(ids.size());
    const model::DecoderInput input{at::tensor(ids, at::kLong).unsqueeze(0),
                                    {},
                                    at::arange(tokens, at::kInt).unsqueeze(0),
                                    ops::MakeCausalView(1, tokens)};
    const at::Tensor last_D =
        model::DecoderHidden(config, weights, input, {}).select(0, 0).select(0, tokens - 1);
    const at::Tensor logits_V = at::mv(weights.Outer().head_VD, last_D);
    const at::Tensor seen_N = at::tensor(ids, at::kLong), seen_logits_N = logits_V.index({seen_N});
    logits_V.index_put_({seen_N}, at::where(seen_logits_N.lt(0), seen_logits_N * repetition_penalty,
                                            seen_logits_N / repetition_penalty));
    ids.push_back(logits_V.argmax().item<int64_t>());
  }
  return {ids.begin() + static_cast<std::ptrdiff_t>(kPrompt.size()), ids.end()};
}

class GeneratorTest : public testing::Test {
 protected:
  config::ModelConfig config_ = TinyConfig();
  model::ResidentWeights weights_ = TinyWeights(config_);
  DecodeModel model_{config_, weights_};
};

TEST_F(GeneratorTest, GreedyEqualsTheForwardWithoutACache) {
  std::vector<int64_t> streamed;
  const GenerateResult result = Generate(model_, kPrompt, Greedy(20), [&](int64_t id) {
    streamed.push_back(id);
    return true;
  });
  EXPECT_EQ(result.new_ids, GreedyWithoutCache(config_, weights_, 20));
  EXPECT_EQ(streamed, result.new_ids);
  EXPECT_EQ(result.stop, GenerateResult::Stop::kMaxNewTokens);
  EXPECT_EQ(result.prompt_tokens, 5);
  EXPECT_GT(result.PrefillTokensPerSecond(), 0);
  EXPECT_GT(result.DecodeTokensPerSecond(), 0);
}

TEST_F(GeneratorTest, TokensOfThePromptAndDrawnOnesArePenalised) {
  GenerateOptions options = Greedy(20);
  options.sampling.repetition_penalty = 1.3;
  const auto ids = Generate(model_, kPrompt, options, GoOn).new_ids;
  EXPECT_EQ(ids, GreedyWithoutCache(config_, weights_, 20, 1.3));
  EXPECT_NE(ids, Generate(model_, kPrompt, Greedy(20), GoOn).new_ids);
}

TEST_F(GeneratorTest, EndsAtTheEndOfTextUnlessToldToGoOn) {
  const auto all = Generate(model_, kPrompt, Greedy(20), GoOn).new_ids;
  auto config = config_;
  config.eos_token_id = all[7];
  const DecodeModel model(config, weights_);
  GenerateOptions options = Greedy(20);
  EXPECT_EQ(Generate(model, kPrompt, options, GoOn).new_ids, all);
  options.ignore_eos = false;
  const GenerateResult result = Generate(model, kPrompt, options, GoOn);
  const auto first = std::find(all.begin(), all.end(), all[7]);
  EXPECT_EQ(result.new_ids, std::vector<int64_t>(all.begin(), first + 1));
  EXPECT_EQ(result.stop, GenerateResult::Stop::kEndOfText);
  config.eos_token_id = 60;
  config.more_eos_token_ids = {59, all[7]};
  ASSERT_EQ(std::count(all.begin(), all.end(), 60) + std::count(all.begin(), all.end(), 59), 0);
  EXPECT_EQ(Generate(DecodeModel(config, weights_), kPrompt, options, GoOn).new_ids,
            result.new_ids);
}

TEST_F(GeneratorTest, TheSeedDecidesWhatIsDrawn) {
  GenerateOptions options = Greedy(30);
  options.sampling = {.temperature = 1, .top_k = 20, .top_p = 0.9};
  const auto first = Generate(model_, kPrompt, options, GoOn).new_ids;
  EXPECT_EQ(Generate(model_, kPrompt, options, GoOn).new_ids, first);
  options.seed = 43;
  EXPECT_NE(Generate(model_, kPrompt, options, GoOn).new_ids, first);
}

TEST_F(GeneratorTest, StopsWhenTheContextIsFullAndRefusesALongerPrompt) {
  config_.max_position_embeddings = 8;
  const DecodeModel model(config_, weights_);
  const GenerateResult result = Generate(model, kPrompt, Greedy(20), GoOn);
  EXPECT_EQ(result.new_ids.size(), 4u);  // 5 + 3 tokens are read, the fourth new one is not
  EXPECT_EQ(result.stop, GenerateResult::Stop::kContextFull);
  try {
    Generate(model, std::vector<int64_t>(9, 1), Greedy(1), GoOn);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_STREQ(error.what(),
                 "the prompt has 9 tokens, the model's context (max_position_embeddings) is 8; "
                 "shorten the prompt");
  }
}

TEST_F(GeneratorTest, MoreNewTokensThanMemoryHoldsAreRefusedHoweverMany) {
  config_.rope_scaling.type = config::RopeScaling::Type::kDynamic;  // no limit of its own
  const DecodeModel model(config_, weights_);
  for (const int64_t tokens : {int64_t{1} << 44, INT64_MAX}) {
    try {
      Generate(model, kPrompt, Greedy(tokens), GoOn);
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
      EXPECT_NE(std::string(error.what()).find("are left; ask for fewer tokens"), std::string::npos)
          << error.what();
    }
  }
}

TEST_F(GeneratorTest, TheListenerEndsTheGeneration) {
  int64_t heard = 0;
  const auto result = Generate(model_, kPrompt, Greedy(20), [&](int64_t) { return ++heard < 3; });
  EXPECT_EQ(result.new_ids.size(), 3u);
}

TEST_F(GeneratorTest, DrawsOnlyFromTheGivenVocabulary) {
  GenerateOptions options = Greedy(200);
  options.sampling.temperature = 10;  // nearly uniform
  options.vocabulary = 7;
  for (const int64_t id : Generate(model_, kPrompt, options, GoOn).new_ids) EXPECT_LT(id, 7);
}

TEST_F(GeneratorTest, BadRequestsAreRefused) {
  EXPECT_THROW(Generate(model_, {}, Greedy(1), GoOn), Error);
  EXPECT_THROW(Generate(model_, std::vector<int64_t>{61}, Greedy(1), GoOn), Error);
  EXPECT_THROW(Generate(model_, kPrompt, Greedy(-1), GoOn), Error);
  EXPECT_TRUE(Generate(model_, kPrompt, Greedy(0), GoOn).new_ids.empty());
}

}  // namespace
}  // namespace lwm::infer
