#include "lwm/infer/token_batch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/tiny_model.h"

namespace lwm::infer {
namespace {

using testing_support::TinyConfig;

using Tensors = std::map<std::string, at::Tensor>;

at::Tensor Ints(std::initializer_list<int> values, int64_t rows) {
  return at::tensor(at::ArrayRef<int>(values.begin(), values.size()), at::kInt).view({rows, -1});
}

// The message of the refusal, "" when there is none.
std::string Refusal(const Tensors& tensors, int64_t vision_vocab_size = 0) {
  try {
    MakeTokenBatch(tensors, TinyConfig(vision_vocab_size), "x.safetensors");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "";
}

TEST(TokenBatchTest, SegmentsBecomeBeginsAndRestartingPositions) {
  const TokenBatch batch = MakeTokenBatch({{"input_ids", Ints({1, 2, 3, 4, 5, 6, 7, 8}, 2)},
                                           {"segment_ids", Ints({7, 7, 3, 3, 0, 1, 2, 2}, 2)}},
                                          TinyConfig(), "x");
  EXPECT_TRUE(at::equal(batch.begin_BT, Ints({0, 0, 2, 2, 0, 1, 2, 2}, 2)));
  const model::DecoderInput input = DecoderInputOf(batch, nullptr);
  EXPECT_TRUE(at::equal(input.position_BT, Ints({0, 1, 0, 1, 0, 0, 0, 1}, 2)));
  EXPECT_TRUE(at::equal(input.id_BT, batch.id_BT));
  EXPECT_FALSE(batch.target_BT.defined());
}

TEST(TokenBatchTest, WeightsDefaultToOneOverTheNumberOfLabels) {
  const TokenBatch batch = MakeTokenBatch(
      {{"input_ids", Ints({1, 2, 3}, 1)}, {"labels", Ints({2, -100, 4}, 1)}}, TinyConfig(), "x");
  EXPECT_TRUE(at::allclose(batch.weight_BT, at::full({1, 3}, 0.5)));
  const model::DecoderInput input = DecoderInputOf(batch, nullptr);
  EXPECT_TRUE(at::equal(DecoderTargetsOf(batch, input).id_BT, Ints({2, -100, 4}, 1).to(at::kLong)));
}

TEST(TokenBatchTest, WrongInputIsRefusedNamingTensorAndReason) {
  const at::Tensor ids = Ints({1, 2, 3, 4}, 1);
  EXPECT_EQ(Refusal({{"input_ids", ids}}), "");
  EXPECT_EQ(Refusal({{"inputs_ids", ids}}),
            "x.safetensors: unknown tensor 'inputs_ids'; did you mean 'input_ids'?");
  EXPECT_EQ(Refusal({{"labels", ids}}), "x.safetensors: tensor 'input_ids' is missing");
  EXPECT_EQ(Refusal({{"input_ids", ids}, {"segment_ids", Ints({1, 2, 2, 1}, 1)}}),
            "x.safetensors: segment id 1 comes back at token 3; a segment must be one run of "
            "tokens");
  EXPECT_EQ(Refusal({{"input_ids", ids}, {"labels", Ints({1, 2}, 1)}}),
            "x.safetensors: labels has shape [1, 2], input_ids [1, 4]");
  EXPECT_EQ(Refusal({{"input_ids", Ints({1, 61, 3}, 1)}}),
            "x.safetensors: input_ids: text id 61 is outside the vocabulary of 61");
  EXPECT_EQ(Refusal({{"input_ids", ids}, {"labels", Ints({1, 2, -3, 4}, 1)}}),
            "x.safetensors: labels: text id -3 is outside the vocabulary of 61");
  EXPECT_EQ(Refusal({{"input_ids", ids}, {"loss_weights", at::ones({1, 4})}}),
            "x.safetensors: loss_weights is given without labels");
  EXPECT_EQ(Refusal({{"input_ids", ids.to(at::kFloat)}}),
            "x.safetensors: input_ids is Float, want integers");
}

TEST(TokenBatchTest, VisionIdsAreCheckedAgainstTheirOwnVocabulary) {
  const at::Tensor ids = Ints({1, 80, 3}, 1), mask = Ints({0, 1, 0}, 1).to(at::kByte);
  EXPECT_EQ(Refusal({{"input_ids", ids}, {"vision_mask", mask}}, 90), "");
  EXPECT_EQ(Refusal({{"input_ids", ids}, {"vision_mask", mask}}, 80),
            "x.safetensors: input_ids: vision id 80 is outside the vocabulary of 80");
  EXPECT_EQ(Refusal({{"input_ids", ids}, {"vision_mask", mask}}, 0),
            "x.safetensors: input_ids: vision tokens need a model with vision_vocab_size > 0");
}

TEST(TokenBatchTest, ASegmentLongerThanTheContextIsRefusedUnlessScalingIsDynamic) {
  auto config = TinyConfig();
  config.max_position_embeddings = 3;
  const Tensors long_segment = {{"input_ids", Ints({1, 2, 3, 4}, 1)}};
  EXPECT_ERROR(MakeTokenBatch(long_segment, config, "x"), kInvalidArgument);
  Tensors two_segments = long_segment;
  two_segments["segment_ids"] = Ints({1, 2, 2, 2}, 1);
  MakeTokenBatch(two_segments, config, "x");
  config.rope_scaling.type = config::RopeScaling::Type::kDynamic;
  MakeTokenBatch(long_segment, config, "x");
}

}  // namespace
}  // namespace lwm::infer
