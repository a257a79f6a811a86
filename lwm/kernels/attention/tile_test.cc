#include "lwm/kernels/attention/tile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "lwm/base/instruction_set.h"
#include "lwm/base/random.h"
#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/attention/amx.h"
#include "lwm/kernels/attention/scalar_tile.h"
#include "lwm/kernels/tile_layout.h"

namespace lwm::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One tile pair whose last rows and keys are missing, with a mask of two segments; so are rows
// in the middle of a large one.
struct Pair {
  explicit Pair(const AttentionTileShape& tile_shape) : shape(tile_shape) {
    for (auto* x : {&q, &dout}) *x = RandomRows(shape.rows);
    for (auto* x : {&k, &v}) *x = RandomRows(shape.keys);
    for (int r = 0; r < shape.rows; ++r) {
      const bool missing = r >= shape.rows - 5 || (r >= 128 && r < 192);
      index_R.push_back(missing ? -1 : 20 + r);
      begin_R.push_back(missing || r < 70 ? 0 : 90);
      lse_R.push_back(missing ? kInfinity : 3 + 0.01f * static_cast<float>(r));
      delta_R.push_back(missing ? 0 : 0.1f);
      q_rows.push_back(missing ? nullptr : Row(q, r));
      dout_rows.push_back(missing ? nullptr : Row(dout, r));
    }
    for (int n = 0; n < shape.keys; ++n) {
      const bool missing = n >= shape.keys - 3;
      key_index_N.push_back(missing ? -1 : n);
      k_rows.push_back(missing ? nullptr : Row(k, n));
      v_rows.push_back(missing ? nullptr : Row(v, n));
    }
  }

  std::vector<char> RandomRows(int rows) {
    const auto count = static_cast<size_t>(rows * shape.head_dim);
    std::vector<char> bytes(count * BytesPerElement(shape.type));
    for (size_t i = 0; i < count; ++i) {
      const uint32_t bits =
          std::bit_cast<uint32_t>(static_cast<float>(3 * random.Uniform() - 1.5)) & 0xffff0000u;
      if (shape.type == TileType::kF32) {
        std::copy_n(reinterpret_cast<const char*>(&bits), 4, &bytes[4 * i]);
      } else {
        std::copy_n(reinterpret_cast<const char*>(&bits) + 2, 2, &bytes[2 * i]);
      }
    }
    return bytes;
  }
  const void* Row(const std::vector<char>& rows, int i) const {
    return rows.data() + static_cast<size_t>(i * shape.head_dim) * BytesPerElement(shape.type);
  }
  TileMask mask() const { return {key_index_N.data(), begin_R.data(), index_R.data()}; }
  AttentionRows queries() const { return {q_rows.data(), dout_rows.data()}; }
  AttentionRows keys() const { return {k_rows.data(), v_rows.data()}; }

  AttentionTileShape shape;
  Random random{5};
  std::vector<char> q, k, v, dout;
  std::vector<const void*> q_rows, k_rows, v_rows, dout_rows;
  std::vector<int32_t> index_R, begin_R, key_index_N;
  std::vector<float> lse_R, delta_R;
};

struct Sums {
  explicit Sums(const AttentionTileShape& shape, int rows)
      : count(static_cast<size_t>(rows * shape.padded_dim())),
        data(MakeAlignedBuffer<float>(count)) {
    std::fill_n(data.get(), count, 0.0f);
  }
  float* get() const { return data.get(); }
  size_t count;
  AlignedBuffer<float> data;
};

// The rows of the queries that are there.
std::vector<float*> RowsWanted(const Pair& pair, const Sums& dq_RK) {
  std::vector<float*> rows;
  for (int r = 0; r < pair.shape.rows; ++r) {
    rows.push_back(pair.index_R[static_cast<size_t>(r)] < 0
                       ? nullptr
                       : dq_RK.get() + r * pair.shape.padded_dim());
  }
  return rows;
}

void ExpectClose(const float* got, const float* want, size_t count, double bound,
                 const char* what) {
  double worst = 0, largest = 0;
  for (size_t i = 0; i < count; ++i) {
    worst = std::max(worst, std::abs(double{got[i]} - want[i]));
    largest = std::max(largest, std::abs(double{want[i]}));
    ASSERT_FALSE(std::isnan(got[i])) << what << " " << i;
  }
  EXPECT_LE(worst, bound * largest) << what;
}

std::vector<TileKernel> OwnKernels() {
  std::vector<TileKernel> kernels;
  if (Avx512Bf16Available()) kernels.push_back(TileKernel::kAvx512Bf16);
  if (AmxAvailable()) kernels.push_back(TileKernel::kAmx);
  return kernels;
}

std::vector<AttentionTileShape> Shapes() {
  std::vector<AttentionTileShape> shapes;
  for (const int head_dim : {8, 20, 96, 128, 256}) {
    shapes.push_back({TileType::kF32, 64, 128, head_dim, TileKernel::kOneDnn});
    shapes.push_back({TileType::kBF16, 64, 128, head_dim, TileKernel::kOneDnn});
    for (const TileKernel kernel : OwnKernels()) {
      shapes.push_back({TileType::kBF16, 64, 128, head_dim, kernel});
      shapes.push_back({TileType::kBF16, 320, 512, head_dim, kernel});
    }
  }
  return shapes;
}

// The scalar tile is the definition in plain loops; f64 references guard it in ops.
TEST(AttentionTileTest, ForwardMatchesTheDefinitionInTwoSteps) {
  for (const AttentionTileShape& shape : Shapes()) {
    SCOPED_TRACE(testing::Message() << "dim " << shape.head_dim << " keys " << shape.keys
                                    << " bf16 " << (shape.type == TileType::kBF16) << " kernel "
                                    << static_cast<int>(shape.kernel));
    const Pair pair(shape);
    const TileMask mask = pair.mask();
    const auto rows = static_cast<size_t>(shape.rows);
    Sums got(shape, shape.rows), want(shape, shape.rows);
    std::vector<float> max(rows, -kInfinity), sum(rows), want_max = max, want_sum = sum;
    AttentionForwardTile& tile = ThreadForwardTile(shape);
    auto queries = MakeAlignedBuffer<char>(AttentionForwardTile::PackedQueryBytes(shape));
    auto keys = MakeAlignedBuffer<char>(AttentionForwardTile::PackedKeyBytes(shape));
    EXPECT_TRUE(tile.PackQueries(pair.queries(), queries.get()));
    EXPECT_TRUE(tile.PackKeys(pair.keys(), keys.get()));
    for (int step = 0; step < 2; ++step) {
      tile.Run(queries.get(), keys.get(), nullptr, 0.3f, &mask,
               {.max_R = max.data(), .sum_R = sum.data(), .acc_RK = got.get()});
      ScalarTileForward(shape, pair.queries(), pair.keys(), 0.3f, mask,
                        {.max_R = want_max.data(), .sum_R = want_sum.data(), .acc_RK = want.get()});
    }
    for (size_t r = 0; r < rows; ++r) {  // sums are relative to a maximum that may lag
      if (want_max[r] == -kInfinity) continue;
      EXPECT_NEAR(max[r], want_max[r] - 2.5f, 2.5f + 1e-5f) << r;
      const float factor = std::exp(max[r] - want_max[r]);
      sum[r] *= factor;
      const size_t dim = got.count / rows;
      for (size_t k = r * dim; k < (r + 1) * dim; ++k) got.get()[k] *= factor;
    }
    const double bound = shape.type == TileType::kF32 ? 2e-6 : 4e-3;
    ExpectClose(got.get(), want.get(), got.count, bound, "acc");
    ExpectClose(sum.data(), want_sum.data(), rows, bound, "sum");
    EXPECT_EQ(max.back(), -kInfinity);
    EXPECT_EQ(sum.back(), 0);
  }
}

TEST(AttentionTileTest, UnpackedKeysAreThoseThatWerePacked) {
  for (const AttentionTileShape& shape : Shapes()) {
    if (!shape.own_blocks()) continue;
    const Pair pair(shape);
    auto packed = MakeAlignedBuffer<char>(AttentionForwardTile::PackedKeyBytes(shape));
    ThreadForwardTile(shape).PackKeys(pair.keys(), packed.get());
    const auto keys = static_cast<size_t>(shape.keys),
               dim = static_cast<size_t>(shape.padded_dim());
    std::vector<uint16_t> k_NK(keys * dim), v_NK(k_NK.size()), want_k(k_NK.size()), want_v = want_k;
    UnpackKeys(shape, packed.get(), k_NK.data(), v_NK.data());
    GatherRows(shape.type, pair.keys().first, shape.keys, shape.head_dim, shape.padded_dim(),
               want_k.data());
    GatherRows(shape.type, pair.keys().second, shape.keys, shape.head_dim, shape.padded_dim(),
               want_v.data());
    EXPECT_EQ(k_NK, want_k) << shape.head_dim;
    EXPECT_EQ(v_NK, want_v) << shape.head_dim;
  }
}

uint16_t Bf16(float x) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); }

// Keys of one tile: the score with every query in front, and the values 1 or 0.
class ScoredKeys {
 public:
  static constexpr int kDim = 32;

  ScoredKeys(int keys, float score) : k_(static_cast<size_t>(keys * kDim)), v_(k_.size()) {
    for (int n = 0; n < keys; ++n) Set(n, score, 1);
  }
  void Set(int n, float score, float value) {
    k_[static_cast<size_t>(n * kDim)] = Bf16(score);
    std::fill_n(v_.begin() + n * kDim, kDim, Bf16(value));
  }
  void Pack(AttentionForwardTile& tile, void* packed) const {
    std::vector<const void*> k_rows, v_rows;
    for (size_t at = 0; at < k_.size(); at += kDim) {
      k_rows.push_back(&k_[at]);
      v_rows.push_back(&v_[at]);
    }
    tile.PackKeys({k_rows.data(), v_rows.data()}, packed);
  }

 private:
  std::vector<uint16_t> k_, v_;
};

void ExpectFollowsTwoRises(TileKernel kernel) {
  const AttentionTileShape shape{TileType::kBF16, 64, 256, ScoredKeys::kDim, kernel};
  AttentionForwardTile& tile = ThreadForwardTile(shape);
  auto queries = MakeAlignedBuffer<char>(AttentionForwardTile::PackedQueryBytes(shape));
  auto keys = MakeAlignedBuffer<char>(AttentionForwardTile::PackedKeyBytes(shape));
  std::vector<uint16_t> first_axis(ScoredKeys::kDim);
  first_axis[0] = Bf16(1);
  const std::vector<const void*> rows(64, first_axis.data());
  tile.PackQueries({rows.data(), nullptr}, queries.get());
  std::vector<float> max(64, -kInfinity), sum(64);
  Sums acc(shape, 64);
  ScoredKeys even(256, 0), rising(256, -20);
  rising.Set(5, 3, 1);  // before the rises, and within the slack
  rising.Set(40, 5.5f, 0);
  rising.Set(70, 11, 0);
  for (const ScoredKeys* scored : {&even, &rising}) {
    scored->Pack(tile, keys.get());
    tile.Run(queries.get(), keys.get(), nullptr, 1, nullptr,
             {.max_R = max.data(), .sum_R = sum.data(), .acc_RK = acc.get()});
  }
  const double values = 256 + std::exp(3.0), all = values + std::exp(5.5) + std::exp(11.0);
  for (size_t r = 0; r < 64; ++r) {
    EXPECT_NEAR(sum[r] * std::exp(double{max[r]}) / all, 1, 1e-3) << r;
    EXPECT_NEAR(acc.get()[r * ScoredKeys::kDim + r % 32] * std::exp(double{max[r]}) / values, 1,
                4e-3)
        << r;
  }
}

TEST(AttentionTileTest, ForwardFollowsTwoRisesInOneTile) {
  if (OwnKernels().empty()) GTEST_SKIP() << "of our own kernels";
  for (const TileKernel kernel : OwnKernels()) {
    SCOPED_TRACE(static_cast<int>(kernel));
    ExpectFollowsTwoRises(kernel);
  }
}

TEST(AttentionTileTest, BackwardMatchesTheDefinition) {
  for (const AttentionTileShape& shape : Shapes()) {
    SCOPED_TRACE(testing::Message() << "dim " << shape.head_dim << " keys " << shape.keys
                                    << " bf16 " << (shape.type == TileType::kBF16) << " kernel "
                                    << static_cast<int>(shape.kernel));
    const Pair pair(shape);
    const TileMask mask = pair.mask();
    Sums dk(shape, shape.keys), dv(shape, shape.keys), dq(shape, shape.rows);
    Sums want_dk(shape, shape.keys), want_dv(shape, shape.keys);
    AttentionBackwardTile& tile = ThreadBackwardTile(shape);
    auto queries = MakeAlignedBuffer<char>(AttentionBackwardTile::PackedQueryBytes(shape));
    EXPECT_TRUE(tile.PackQueries(pair.queries(), queries.get()));
    EXPECT_TRUE(tile.StartKeys(pair.keys()));
    const double bound = shape.type == TileType::kF32 ? 4e-6 : 8e-3;
    for (int step = 0; step < 2; ++step) {
      Sums got_dq(shape, shape.rows);
      const std::vector<float*> dq_rows = RowsWanted(pair, got_dq);
      tile.Run(queries.get(), nullptr, 0.3f, &mask, pair.lse_R.data(), pair.delta_R.data(),
               dq_rows.data());
      ScalarTileBackward(shape, pair.queries(), pair.keys(), 0.3f, mask,
                         {.lse_R = pair.lse_R.data(),
                          .delta_R = pair.delta_R.data(),
                          .dk_NK = want_dk.get(),
                          .dv_NK = want_dv.get(),
                          .dq_RK = dq.get()});
      ExpectClose(got_dq.get(), dq.get(), dq.count, bound, "dq");
    }
    tile.KeyGradients(dk.get(), dv.get());
    ExpectClose(dk.get(), want_dk.get(), dk.count, bound, "dk");
    ExpectClose(dv.get(), want_dv.get(), dv.count, bound, "dv");
  }
}

TEST(AttentionTileTest, PackingReportsNumbersThatAreNotFinite) {
  for (const AttentionTileShape& shape : Shapes()) {
    Pair pair(shape);
    std::fill_n(pair.v.begin(), 4, static_cast<char>(0x7f));  // 3.4e38 or, as bf16, finite too
    std::fill_n(pair.v.end() - 4 * shape.head_dim * static_cast<long>(BytesPerElement(shape.type)),
                4, static_cast<char>(0xff));  // NaN in either type
    auto keys = MakeAlignedBuffer<char>(AttentionForwardTile::PackedKeyBytes(shape));
    EXPECT_FALSE(ThreadForwardTile(shape).PackKeys(pair.keys(), keys.get()));
    EXPECT_FALSE(ThreadBackwardTile(shape).StartKeys(pair.keys()));
  }
}

}  // namespace
}  // namespace lwm::kernels
