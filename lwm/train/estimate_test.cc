#include "lwm/train/estimate.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"

namespace lwm::train {
namespace {

MemoryQuestion SmallQuestion() {
  MemoryQuestion q;
  q.model.vocab_size = 1000;
  q.model.hidden_size = 64;
  q.model.intermediate_size = 128;
  q.model.num_hidden_layers = 4;
  q.model.num_attention_heads = 4;
  q.model.num_key_value_heads = 2;
  q.model.head_dim = 16;
  q.row_tokens = 1 << 16;
  return q;
}

double PartBytes(const MemoryEstimate& estimate, const std::string& name) {
  for (const auto& part : estimate.parts)
    if (part.name == name) return part.bytes;
  return -1;
}

TEST(EstimateTest, StateIsSixteenBytesAParameterAndTheComputeCopy) {
  MemoryQuestion q = SmallQuestion();
  const auto params = static_cast<double>(q.model.ParameterCount());
  EXPECT_DOUBLE_EQ(PartBytes(EstimateTraining(q), "weights and optimizer"), 18 * params);
  q.bf16 = false;
  EXPECT_DOUBLE_EQ(PartBytes(EstimateTraining(q), "weights and optimizer"), 16 * params);
  q.mesh.fsdp = 2;
  q.mesh.sp = 4;
  EXPECT_DOUBLE_EQ(PartBytes(EstimateTraining(q), "weights and optimizer"), 2 * params);
}

TEST(EstimateTest, KeptActivationsGrowByInputOutputAndLsePerLayerAndDivideOverSp) {
  MemoryQuestion q = SmallQuestion();
  const double kept = PartBytes(EstimateTraining(q), "kept activations");
  q.mesh.sp = 4;
  EXPECT_DOUBLE_EQ(PartBytes(EstimateTraining(q), "kept activations"), kept / 4);
  q.mesh.sp = 1;
  q.model.num_hidden_layers += 1;
  EXPECT_DOUBLE_EQ(PartBytes(EstimateTraining(q), "kept activations") - kept,
                   65536.0 * (2 * 64 + 2 * 64 + 4 * 4));
}

TEST(EstimateTest, RunThatFitsIsAccepted) { EXPECT_NO_THROW(RequireFits(SmallQuestion(), 1, 4e9)); }

TEST(EstimateTest, RunThatCannotFitIsRefusedWithSettingsThatDo) {
  MemoryQuestion q = SmallQuestion();
  q.row_tokens = 1 << 22;
  const double available = 2e9;
  try {
    RequireFits(q, 2, available);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    const std::string text = error.what();
    EXPECT_EQ(text.find('\n'), std::string::npos);
    const size_t at = text.find("data.row_tokens = ");
    ASSERT_NE(at, std::string::npos) << text;
    q.row_tokens = std::stoll(text.substr(at + 18));
    EXPECT_NO_THROW(RequireFits(q, 2, available));
    EXPECT_NE(text.find("parallel.mesh = \"1,1,1,"), std::string::npos) << text;
  }
}

TEST(EstimateTest, ModelTooLargeForAnyRowSaysSo) {
  MemoryQuestion q = SmallQuestion();
  q.mesh.tp = 1;
  try {
    RequireFits(q, 1, 1e6);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("use a smaller model"), std::string::npos);
  }
}

}  // namespace
}  // namespace lwm::train
