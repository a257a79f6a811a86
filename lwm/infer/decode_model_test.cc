#include "lwm/infer/decode_model.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/model/decoder.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/tiny_model.h"

namespace lwm::infer {
namespace {

using testing_support::TinyConfig;
using testing_support::TinyWeights;

at::Tensor RandomIds(int64_t rows, int64_t tokens, int64_t vocab) {
  return at::randint(vocab, {rows, tokens}, at::kLong);
}

// Logits of every position by the decoder that training uses, [B,T,V].
at::Tensor FullLogits(const config::ModelConfig& config, const model::WeightReader& weights,
                      const NewTokens& tokens, Head head) {
  const int64_t rows = tokens.id_BT.size(0), count = tokens.id_BT.size(1);
  const model::DecoderInput input{tokens.id_BT, tokens.vision_BT,
                                  at::arange(count, at::kInt).expand({rows, count}).contiguous(),
                                  ops::MakeCausalView(rows, count)};
  const at::Tensor hidden_BTD = model::DecoderHidden(config, weights, input, {});
  const model::NonLayerWeights& outer = weights.NonLayer();
  return at::linear(hidden_BTD,
                    (head == Head::kText ? outer.head_VD : outer.vision_head_VD).dense())
      .to(at::kFloat);
}

double WorstDifference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a - b).abs().max().item<double>() / b.abs().max().item<double>();
}

NewTokens Part(const NewTokens& tokens, int64_t begin, int64_t end) {
  return {tokens.id_BT.slice(1, begin, end),
          tokens.vision_BT.defined() ? tokens.vision_BT.slice(1, begin, end) : at::Tensor()};
}

// Reads the prompt at once and the rest token by token; every logit must be the full forward's.
void ExpectDecodesLikeFull(const config::ModelConfig& config, model::ResidentWeights& weights,
                           const NewTokens& tokens, int64_t prompt, double tolerance) {
  const DecodeModel decode(config, weights);
  const int64_t count = tokens.id_BT.size(1);
  const at::Tensor want_BTV = FullLogits(config, weights, tokens, Head::kText);
  KvCache cache(config, tokens.id_BT.size(0), count, decode.dtype());
  for (int64_t end = prompt; end <= count; ++end) {
    const at::Tensor got_BV =
        decode.Read(Part(tokens, end == prompt ? 0 : end - 1, end), Head::kText, cache);
    EXPECT_LE(WorstDifference(got_BV, want_BTV.select(1, end - 1)), tolerance) << "token " << end;
  }
  EXPECT_EQ(cache.tokens(), count);
}

constexpr double kF32Tolerance = 1e-5;

TEST(DecodeModelTest, CachedDecodingEqualsTheFullForward) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);
  for (const int64_t prompt : {1, 2, 7, 33})
    ExpectDecodesLikeFull(config, weights, {RandomIds(1, prompt + 5, config.vocab_size), {}},
                          prompt, kF32Tolerance);
}

TEST(DecodeModelTest, ABatchOfRowsDecodesLikeTheFullForward) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);
  for (const int64_t rows : {2, 3, 6})  // few rows and more than Gemv takes
    ExpectDecodesLikeFull(config, weights, {RandomIds(rows, 17, config.vocab_size), {}}, 12,
                          kF32Tolerance);
}

TEST(DecodeModelTest, TiedWeightsAndOneKvHeadDecodeLikeTheFullForward) {
  auto config = TinyConfig();
  config.tie_word_embeddings = true;
  config.num_key_value_heads = 1;
  auto weights = TinyWeights(config);
  ExpectDecodesLikeFull(config, weights, {RandomIds(2, 20, config.vocab_size), {}}, 15,
                        kF32Tolerance);
}

TEST(DecodeModelTest, Bf16DecodesLikeTheFullForward) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config, at::kBFloat16);
  ExpectDecodesLikeFull(config, weights, {RandomIds(2, 21, config.vocab_size), {}}, 14, 4e-2);
}

TEST(DecodeModelTest, ChunkedPrefillEqualsTheFullForward) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);
  const DecodeModel decode(config, weights);
  const int64_t count = 2 * kPrefillChunkTokens + 77;
  const NewTokens tokens{RandomIds(1, count, config.vocab_size), {}};
  const at::Tensor want_BTV = FullLogits(config, weights, tokens, Head::kText);
  KvCache chunked(config, 1, count, at::kFloat), odd(config, 1, count, at::kFloat);
  EXPECT_LE(
      WorstDifference(decode.Read(tokens, Head::kText, chunked), want_BTV.select(1, count - 1)),
      kF32Tolerance);
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 301}, {301, 700}, {700, count}})
    EXPECT_LE(WorstDifference(decode.Read(Part(tokens, begin, end), Head::kText, odd),
                              want_BTV.select(1, end - 1)),
              kF32Tolerance);
}

// Rows of 9 and 4 tokens in one batch: the short one is padded on the left.
TEST(DecodeModelTest, LeftPaddedRowsDecodeAsTheyWouldAlone) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);
  const DecodeModel decode(config, weights);
  const at::Tensor id_BT = RandomIds(2, 9, config.vocab_size);
  const at::Tensor next_B1 = RandomIds(2, 1, config.vocab_size);
  KvCache both(config, 2, 10, at::kFloat), alone(config, 1, 5, at::kFloat);
  both.SetBegin(at::tensor({0, 5}, at::kInt));
  const at::Tensor prompt_BV = decode.Read({id_BT, {}}, Head::kText, both);
  const at::Tensor prompt_1V = decode.Read({id_BT.slice(0, 1).slice(1, 5), {}}, Head::kText, alone);
  EXPECT_LE(WorstDifference(prompt_BV.slice(0, 1), prompt_1V), kF32Tolerance);
  const at::Tensor next_BV = decode.Read({next_B1, {}}, Head::kText, both);
  const at::Tensor next_1V = decode.Read({next_B1.slice(0, 1), {}}, Head::kText, alone);
  EXPECT_LE(WorstDifference(next_BV.slice(0, 1), next_1V), kF32Tolerance);
}

TEST(DecodeModelTest, VisionTokensUseTheirTableAndTheChosenHead) {
  const auto config = TinyConfig(/*vision_vocab_size=*/90);
  auto weights = TinyWeights(config);
  const DecodeModel decode(config, weights);
  NewTokens tokens{RandomIds(2, 13, config.vocab_size), at::rand({2, 13}).gt(0.5)};
  tokens.id_BT = at::where(tokens.vision_BT, tokens.id_BT + 29, tokens.id_BT);  // up to 89
  ExpectDecodesLikeFull(config, weights, tokens, 9, kF32Tolerance);
  KvCache cache(config, 2, 13, at::kFloat);
  const at::Tensor got_BV = decode.Read(tokens, Head::kVision, cache);
  const at::Tensor want_BTV = FullLogits(config, weights, tokens, Head::kVision);
  EXPECT_LE(WorstDifference(got_BV, want_BTV.select(1, 12)), kF32Tolerance);
}

// Dynamic scaling: the prompt is read with the frequencies of its whole length, in every chunk.
TEST(DecodeModelTest, DynamicScalingReadsAPromptLikeTheFullForward) {
  auto config = TinyConfig();
  config.max_position_embeddings = 100;
  config.rope_scaling.type = config::RopeScaling::Type::kDynamic;
  config.rope_scaling.factor = 2;
  auto weights = TinyWeights(config);
  const DecodeModel decode(config, weights);
  const int64_t count = kPrefillChunkTokens + 61;
  const NewTokens tokens{RandomIds(1, count, config.vocab_size), {}};
  KvCache cache(config, 1, count, at::kFloat);
  EXPECT_LE(WorstDifference(decode.Read(tokens, Head::kText, cache),
                            FullLogits(config, weights, tokens, Head::kText).select(1, count - 1)),
            kF32Tolerance);
}

TEST(DecodeModelTest, BadTokensAreRefusedBeforeTheCacheChanges) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);
  const DecodeModel decode(config, weights);
  KvCache cache(config, 1, 4, at::kFloat);
  const auto read = [&](const at::Tensor& id_BT, Head head = Head::kText) {
    return decode.Read({id_BT, {}}, head, cache);
  };
  EXPECT_ERROR(read(at::tensor({3, 61}, at::kLong).unsqueeze(0)), kInvalidArgument);
  EXPECT_ERROR(read(at::tensor({-1}, at::kLong).unsqueeze(0)), kInvalidArgument);
  EXPECT_ERROR(read(RandomIds(1, 5, 60)), kResourceExhausted);
  EXPECT_ERROR(read(RandomIds(1, 2, 60), Head::kVision), kInvalidArgument);
  EXPECT_EQ(cache.tokens(), 0);
}

}  // namespace
}  // namespace lwm::infer
