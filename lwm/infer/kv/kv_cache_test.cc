#include "lwm/infer/kv/kv_cache.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/testing/tiny_model.h"

namespace lwm::infer {
namespace {

using testing_support::TinyConfig;

TEST(KvCacheTest, GivesBackWhatWasWrittenInOrder) {
  const auto config = TinyConfig();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    KvCache cache(config, /*rows=*/3, /*capacity=*/20, dtype);
    const at::Tensor k_LBTGK = at::randn({3, 3, 13, 2, 8}).to(dtype);
    const at::Tensor v_LBTGK = at::randn({3, 3, 13, 2, 8}).to(dtype);
    for (const auto& [begin, end] : {std::pair{0, 5}, {5, 6}, {6, 13}}) {
      for (int64_t l = 0; l < 3; ++l)
        cache.Write(l, k_LBTGK[l].slice(1, begin, end).contiguous(),
                    v_LBTGK[l].slice(1, begin, end).contiguous());
      cache.Advance(end - begin);
    }
    EXPECT_EQ(cache.tokens(), 13);
    for (int64_t l = 0; l < 3; ++l) {
      EXPECT_TRUE(at::equal(cache.Keys(l, 13), k_LBTGK[l]));
      EXPECT_TRUE(at::equal(cache.Values(l, 13), v_LBTGK[l]));
      EXPECT_TRUE(at::equal(cache.Keys(l, 4), k_LBTGK[l].slice(1, 0, 4)));
    }
  }
}

TEST(KvCacheTest, TruncatedTokensCanBeWrittenAgain) {
  KvCache cache(TinyConfig(), 1, 8, at::kFloat);
  const at::Tensor first = at::randn({1, 6, 2, 8}), second = at::randn({1, 3, 2, 8});
  for (int64_t l = 0; l < 3; ++l) cache.Write(l, first, first);
  cache.Advance(6);
  cache.Truncate(2);
  for (int64_t l = 0; l < 3; ++l) cache.Write(l, second, second);
  cache.Advance(3);
  EXPECT_TRUE(at::equal(cache.Keys(2, 5), at::cat({first.slice(1, 0, 2), second}, 1)));
}

TEST(KvCacheTest, MemoryIsWhatTheTokensTakeAndTruncatingGivesItBack) {
  auto config = TinyConfig();
  config.head_dim = 128;
  config.max_position_embeddings = int64_t{1} << 20;
  const int64_t tokens = 4096;
  const int64_t bytes = tokens * KvBytesPerToken(config, at::kBFloat16);
  EXPECT_EQ(bytes, 2 * 3 * 2 * 128 * 2 * tokens);
  const at::Tensor x_BTGK = at::ones({1, tokens, 2, 128}, at::kBFloat16);
  const int64_t before = ResidentMemoryBytes();
  KvCache cache(config, 1, config.max_position_embeddings, at::kBFloat16);
  for (int64_t l = 0; l < 3; ++l) cache.Write(l, x_BTGK, x_BTGK);
  cache.Advance(tokens);
  const int64_t used = ResidentMemoryBytes() - before;
  EXPECT_NEAR(static_cast<double>(used), static_cast<double>(bytes),
              0.1 * static_cast<double>(bytes));
  cache.Truncate(0);
  EXPECT_LE(ResidentMemoryBytes() - before, bytes / 10);
}

TEST(KvCacheTest, MoreTokensThanItHoldsAreRefusedNamingBothNumbers) {
  KvCache cache(TinyConfig(), 1, 8, at::kFloat);
  try {
    cache.Write(0, at::zeros({1, 9, 2, 8}), at::zeros({1, 9, 2, 8}));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_STREQ(error.what(), "the KV cache holds 8 tokens, 9 are needed");
  }
}

}  // namespace
}  // namespace lwm::infer
