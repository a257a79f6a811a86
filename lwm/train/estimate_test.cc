#include "lwm/train/estimate.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "lwm/base/allocator.h"
#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/base/random.h"
#include "lwm/ops/product.h"
#include "lwm/train/batch.h"
#include "lwm/train/step.h"

namespace lwm::train {
namespace {

MemoryWorkload SmallWorkload() {
  MemoryWorkload q;
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
  MemoryWorkload q = SmallWorkload();
  const auto params = static_cast<double>(q.model.ParameterCount());
  EXPECT_DOUBLE_EQ(PartBytes(EstimateTraining(q), "weights and optimizer"), 18 * params);
  q.bf16 = false;
  EXPECT_DOUBLE_EQ(PartBytes(EstimateTraining(q), "weights and optimizer"), 16 * params);
  q.mesh.fsdp = 2;
  q.mesh.sp = 4;
  EXPECT_DOUBLE_EQ(PartBytes(EstimateTraining(q), "weights and optimizer"), 2 * params);
}

TEST(EstimateTest, NoRankNeedsRoomForMoreRowsThanItHas) {
  const auto config = config::ParseTrainConfig(
      "", "test",
      {"train.run_folder=x", "train.steps=1", "train.rows_per_step=5", "train.micro_rows=8",
       "data.train=x", "data.train_tokenizer_vocab=300"});
  const auto rows = [&](const dist::MeshShape& mesh) {
    return MakeMemoryWorkload(config, SmallWorkload().model, mesh).micro_rows;
  };
  EXPECT_EQ(rows({1, 1, 1, 4}), 5);
  EXPECT_EQ(rows({2, 1, 1, 1}), 3);
  EXPECT_EQ(rows({2, 4, 1, 1}), 1);
}

TEST(EstimateTest, KeptActivationsGrowByInputOutputAndLsePerLayerAndDivideOverSp) {
  MemoryWorkload q = SmallWorkload();
  const double kept = PartBytes(EstimateTraining(q), "kept activations");
  q.mesh.sp = 4;
  EXPECT_DOUBLE_EQ(PartBytes(EstimateTraining(q), "kept activations"), kept / 4);
  q.mesh.sp = 1;
  q.model.num_hidden_layers += 1;
  EXPECT_DOUBLE_EQ(PartBytes(EstimateTraining(q), "kept activations") - kept,
                   65536.0 * (2 * 64 + 2 * 64 + 4 * 4));
}

TEST(EstimateTest, RunThatFitsIsAccepted) { EXPECT_NO_THROW(RequireFits(SmallWorkload(), 1, 4e9)); }

TEST(EstimateTest, RunThatCannotFitIsRefusedWithSettingsThatDo) {
  MemoryWorkload q = SmallWorkload();
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
  MemoryWorkload q = SmallWorkload();
  q.mesh.tp = 1;
  try {
    RequireFits(q, 1, 1e6);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("use a smaller model"), std::string::npos);
  }
}

// A row of random tokens in documents of 256.
data::Row PackedRow(int64_t tokens, int64_t vocab) {
  data::Row row = EmptyRow(tokens);
  Random random(1);
  for (int64_t i = 0; i < tokens; ++i) {
    const auto s = static_cast<size_t>(i);
    row.token_S[s] = static_cast<int32_t>(random.Below(static_cast<uint64_t>(vocab)));
    row.target_S[s] = row.token_S[s];
    row.weight_S[s] = 1;
    row.position_S[s] = static_cast<int32_t>(i % 256);
    row.begin_S[s] = static_cast<int32_t>(i - i % 256);
  }
  row.examples = 1;
  row.padding = 0;
  return row;
}

// How far the peak of steps lies above what was there before, bytes.
double MeasuredBytes(const MemoryWorkload& q) {
  const auto self = dist::MakeSelfCommunicator();
  dist::Mesh mesh(*self, {});
  malloc_trim(0);                                 // memory that earlier work left in the heap
  std::ofstream("/proc/self/clear_refs") << "5";  // forgets the peak so far
  const auto before = static_cast<double>(ResidentMemoryBytes());
  ShardedWeights weights(q.model, mesh, q.bf16 ? at::kBFloat16 : at::kFloat);
  weights.InitRandom({});
  AdamW optimizer(weights, {});
  StepOptions options;
  options.decoder.ffn_slice_tokens = q.ffn_slice_tokens;
  options.decoder.keep_bytes = q.keep_bytes;
  const auto batch = TakeGlobalBatch([&] { return PackedRow(q.row_tokens, q.model.vocab_size); },
                                     q.micro_rows, 0, 1);
  for (int step = 0; step < 2; ++step) {  // the second beside what attention's scratch keeps
    AccumulateGradients(weights, batch, 1, options);
    ApplyUpdate(weights, optimizer, 1e-3, 1);
  }
  return static_cast<double>(PeakMemoryBytes()) - before;
}

// The estimate is at most a fifth below what was measured, since the scratch of libraries and the
// order of allocations differ from processor to processor (0.88 with AVX-512 without BF16, 0.99
// with it), and at most this part more. In a process of its own: what others have left in the heap
// and in the scratch that attention keeps serves or blocks the next.
void ExpectEnough(const char* what, const MemoryWorkload& q, double most_over) {
  SCOPED_TRACE(what);
  EXPECT_EXIT(
      {
        ConfigureAllocator();
        at::set_num_threads(1);
        MemoryWorkload small = q;
        small.row_tokens = 256;
        small.model.vocab_size = 1000;
        MeasuredBytes(small);  // libraries allocate once, at the first call
        const double measured = MeasuredBytes(q);
        const MemoryEstimate estimate = EstimateTraining(q);
        const double ratio = (estimate.total() - PartBytes(estimate, "libraries")) / measured;
        std::fprintf(stderr, "measured %.1f MB, x %.3f: %s\n", measured / 1e6, ratio,
                     Describe(estimate).c_str());
        std::exit(ratio >= 0.8 && ratio <= 1 + most_over ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST(EstimateTest, MeasuredPeaksAreBelowButNotByFar) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer keeps freed memory";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  MemoryWorkload q = SmallWorkload();
  q.row_tokens = 1 << 14;
  q.model.hidden_size = q.model.intermediate_size = 128;
  q.model.head_dim = 32;
  // The order of allocations, and so the freed memory that the heap keeps, differs where products
  // of bf16 are widened: the ratio is 1.0 to 1.26 with AMX, 1.34 and 1.38 with AVX2.
  ExpectEnough("results from the heap", q, ops::LibTorchMultipliesBf16() ? 0.3 : 0.45);
  q.keep_bytes = int64_t{1} << 30;
  ExpectEnough("all activations kept", q, 0.45);
  q.keep_bytes = 0;
  q.row_tokens = 1 << 16;
  q.model.num_hidden_layers = 1;
  ExpectEnough("results with pages of their own", q, 0.25);
  q.model.num_hidden_layers = 4;
  q.bf16 = q.residual_bf16 = false;
  q.row_tokens = 1 << 13;
  ExpectEnough("f32", q, 0.5);
  q = SmallWorkload();
  q.row_tokens = 2048;
  q.model.vocab_size = 40000;
  ExpectEnough("large vocabulary", q, 0.2);
  q = SmallWorkload();
  q.row_tokens = 256;
  q.model.hidden_size = 512;
  q.model.intermediate_size = 2048;
  ExpectEnough("mostly weights", q, 0.25);
}

}  // namespace
}  // namespace lwm::train
