// generation.h for text alone.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/infer/generation.h"
#include "lwm/model/decoder.h"
#include "lwm/testing/message_of.h"
#include "lwm/testing/tiny_model.h"

namespace lwm::infer {
namespace {

using testing_support::TinyConfig;
using testing_support::TinyWeights;

const std::vector<int64_t> kPrompt = {1, 5, 9, 2, 40};
GenerateRequest Greedy(int64_t max_new_tokens, const std::vector<int64_t>& prompt = kPrompt) {
  GenerateRequest request;
  for (const int64_t id : prompt) request.prompt.Add(id, false);
  request.max_new_tokens = max_new_tokens;
  request.text.temperature = 0;
  request.ignore_eos = true;
  return request;
}

GeneratedSequence Answer(const DecodeModel& model, const GenerateRequest& request) {
  return Generate(model, {request}, {})[0];
}

std::vector<int64_t> NewIds(const DecodeModel& model, const GenerateRequest& request) {
  return Answer(model, request).added.id_n;
}

// Greedy continuation that computes everything anew for each token.
std::vector<int64_t> GreedyWithoutCache(const config::ModelConfig& config,
                                        const model::WeightReader& weights, int64_t count,
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
    const at::Tensor logits_V = at::mv(weights.NonLayer().head_VD.dense(), last_D);
    const at::Tensor seen_N = at::tensor(ids, at::kLong), seen_logits_N = logits_V.index({seen_N});
    logits_V.index_put_({seen_N}, at::where(seen_logits_N.lt(0), seen_logits_N * repetition_penalty,
                                            seen_logits_N / repetition_penalty));
    ids.push_back(logits_V.argmax().item<int64_t>());
  }
  return {ids.begin() + static_cast<std::ptrdiff_t>(kPrompt.size()), ids.end()};
}

class TextGenerationTest : public testing::Test {
 protected:
  config::ModelConfig config_ = TinyConfig();
  model::ResidentWeights weights_ = TinyWeights(config_);
  DecodeModel model_{config_, weights_};
};

TEST_F(TextGenerationTest, GreedyEqualsTheForwardWithoutACache) {
  std::vector<int64_t> streamed;
  const auto result = Generate(model_, {Greedy(20)}, {}, [&](size_t, int64_t id, bool vision) {
    EXPECT_FALSE(vision);
    streamed.push_back(id);
    return true;
  })[0];
  EXPECT_EQ(result.added.id_n, GreedyWithoutCache(config_, weights_, 20));
  EXPECT_EQ(streamed, result.added.id_n);
  EXPECT_EQ(result.stop, GeneratedSequence::Stop::kMaxNewTokens);
  EXPECT_EQ(result.prompt_tokens, 5);
}

TEST_F(TextGenerationTest, StepsAreTimed) {
  Generation generation(model_, {Greedy(3)}, {});
  EXPECT_TRUE(generation.Step());
  EXPECT_GT(generation.prefill_seconds(), 0);
  EXPECT_EQ(generation.decode_seconds(), 0);
  EXPECT_TRUE(generation.Step());
  EXPECT_GT(generation.decode_seconds(), 0);
  EXPECT_TRUE(generation.Step());
  EXPECT_FALSE(generation.Step());
  EXPECT_EQ(generation.sequences()[0].added.size(), 3);
}

TEST_F(TextGenerationTest, TokensOfThePromptAndDrawnOnesArePenalised) {
  GenerateRequest options = Greedy(20);
  options.text.repetition_penalty = 1.3;
  const auto ids = NewIds(model_, options);
  EXPECT_EQ(ids, GreedyWithoutCache(config_, weights_, 20, 1.3));
  EXPECT_NE(ids, NewIds(model_, Greedy(20)));
}

TEST_F(TextGenerationTest, EndsAtTheEndOfTextUnlessToldToGoOn) {
  const auto all = NewIds(model_, Greedy(20));
  auto config = config_;
  config.eos_token_id = all[7];
  const DecodeModel model(config, weights_);
  GenerateRequest options = Greedy(20);
  EXPECT_EQ(NewIds(model, options), all);
  options.ignore_eos = false;
  const GeneratedSequence result = Answer(model, options);
  const auto first = std::find(all.begin(), all.end(), all[7]);
  EXPECT_EQ(result.added.id_n, std::vector<int64_t>(all.begin(), first + 1));
  EXPECT_EQ(result.stop, GeneratedSequence::Stop::kEndOfText);
  config.eos_token_id = 60;
  config.more_eos_token_ids = {59, all[7]};
  ASSERT_EQ(std::count(all.begin(), all.end(), 60) + std::count(all.begin(), all.end(), 59), 0);
  EXPECT_EQ(NewIds(DecodeModel(config, weights_), options), result.added.id_n);
}

TEST_F(TextGenerationTest, TheSeedDecidesWhatIsDrawn) {
  GenerateRequest options = Greedy(30);
  options.text = {.temperature = 1, .top_k = 20, .top_p = 0.9};
  const auto first = NewIds(model_, options);
  EXPECT_EQ(NewIds(model_, options), first);
  options.text_seed = 43;
  EXPECT_NE(NewIds(model_, options), first);
}

TEST_F(TextGenerationTest, StopsWhenTheContextIsFullAndRefusesALongerPrompt) {
  config_.max_position_embeddings = 8;
  const DecodeModel model(config_, weights_);
  const GeneratedSequence result = Answer(model, Greedy(20));
  EXPECT_EQ(result.added.id_n.size(), 4u);  // 5 + 3 tokens are read, the fourth new one is not
  EXPECT_EQ(result.stop, GeneratedSequence::Stop::kContextFull);
  try {
    Answer(model, Greedy(1, std::vector<int64_t>(9, 1)));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_STREQ(error.what(),
                 "the prompt has 9 tokens, the model's context (max_position_embeddings) is 8; "
                 "shorten the prompt");
  }
}

TEST_F(TextGenerationTest, MoreNewTokensThanMemoryHoldsAreRefusedHoweverMany) {
  config_.rope_scaling.type = config::RopeScaling::Type::kDynamic;  // no limit of its own
  const DecodeModel model(config_, weights_);
  for (const int64_t tokens : {int64_t{1} << 44, INT64_MAX}) {
    try {
      Answer(model, Greedy(tokens));
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
      EXPECT_NE(std::string(error.what()).find("are left; ask for fewer tokens"), std::string::npos)
          << error.what();
    }
  }
}

TEST_F(TextGenerationTest, TheListenerEndsTheGeneration) {
  int64_t heard = 0;
  const auto result =
      Generate(model_, {Greedy(20)}, {}, [&](size_t, int64_t, bool) { return ++heard < 3; })[0];
  EXPECT_EQ(result.added.size(), 3);
  EXPECT_EQ(result.stop, GeneratedSequence::Stop::kAsked);
}

TEST_F(TextGenerationTest, DrawsOnlyFromTheGivenVocabulary) {
  GenerateRequest options = Greedy(200);
  options.text.temperature = 10;  // nearly uniform
  const auto generated = Generate(model_, {options}, {.text = 7});
  for (const int64_t id : generated[0].added.id_n) EXPECT_LT(id, 7);
}

TEST_F(TextGenerationTest, BadRequestsAreRefused) {
  const auto refused = [&](const GenerateRequest& request) {
    return testing_support::MessageOf([&] { Answer(model_, request); },
                                      ErrorCode::kInvalidArgument);
  };
  EXPECT_EQ(refused(Greedy(1, {})), "the prompt has no tokens");
  EXPECT_NE(refused(Greedy(1, {61})).find("61"), std::string::npos);
  EXPECT_EQ(refused(Greedy(-1)), "max-new-tokens is -1, want >= 0");
  EXPECT_EQ(
      testing_support::MessageOf([&] { Generate(model_, {}, {}); }, ErrorCode::kInvalidArgument),
      "no prompts");
  EXPECT_TRUE(NewIds(model_, Greedy(0)).empty());
}

// Rows of unequal prompts, wishes and ends draw what each draws alone.
TEST_F(TextGenerationTest, ABatchDrawsWhatEachSequenceDrawsAlone) {
  std::vector<GenerateRequest> requests = {Greedy(9), Greedy(0), Greedy(20, {3, 4}), Greedy(4)};
  requests[2].text = {.temperature = 1, .top_k = 20};
  requests[2].text_seed = 5;
  const auto together = Generate(model_, requests, {});
  for (size_t s = 0; s < requests.size(); ++s)
    EXPECT_EQ(together[s].added.id_n, NewIds(model_, requests[s])) << s;
  config_.max_position_embeddings = 8;
  const auto limited = Generate(DecodeModel(config_, weights_), {Greedy(20), Greedy(20, {3})}, {});
  EXPECT_EQ(limited[0].added.size(), 4);
  EXPECT_EQ(limited[1].added.size(), 8);
  EXPECT_EQ(limited[1].stop, GeneratedSequence::Stop::kContextFull);
}

}  // namespace
}  // namespace lwm::infer
