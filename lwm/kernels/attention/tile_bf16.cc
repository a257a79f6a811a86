#include <algorithm>

#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/attention/amx.h"
#include "lwm/kernels/attention/tile.h"
#include "lwm/kernels/tile_layout.h"

namespace lwm::kernels {
namespace {

size_t Numbers(const AttentionTileShape& s, int rows) {
  return static_cast<size_t>(rows) * static_cast<size_t>(s.padded_dim());
}
Bf16TileShape ShapeOf(const AttentionTileShape& s) { return {s.rows, s.keys, s.padded_dim()}; }

bool Gather(const AttentionTileShape& s, const void* const* rows, int count, uint16_t* out) {
  return GatherRows(s.type, rows, count, s.head_dim, s.padded_dim(), out);
}

// pairs of k^T (scores), of v^T (dp) and of k (dq), one after another. Returns whether all numbers
// are finite.
bool PackBackwardKeys(const AttentionTileShape& s, const AttentionRows& keys, uint16_t* packed) {
  const size_t size = Numbers(s, s.keys);
  const bool k_finite = PackTransposedPairs(keys.first, s.keys, s.head_dim, packed);
  const bool v_finite = PackTransposedPairs(keys.second, s.keys, s.head_dim, packed + size);
  PackPairs(keys.first, s.keys, s.head_dim, packed + 2 * size);
  return k_finite && v_finite;
}

// One class for both processors: forward's layouts are the same.
class Bf16ForwardTile : public AttentionForwardTile {
 public:
  explicit Bf16ForwardTile(const AttentionTileShape& shape)
      : shape_(shape),
        s_(MakeAlignedBuffer<float>(kScores)),
        p_(MakeAlignedBuffer<uint16_t>(kScores)) {}

  bool PackQueries(const AttentionRows& queries, void* packed_queries) override {
    return Gather(shape_, queries.first, shape_.rows, static_cast<uint16_t*>(packed_queries));
  }

  // k transposed, since the scores sum over the head dim; v as it is, since the values sum over
  // keys.
  bool PackKeys(const AttentionRows& keys, void* packed_keys) override {
    uint16_t* packed = static_cast<uint16_t*>(packed_keys);
    const int count = shape_.keys, dim = shape_.head_dim;
    const bool k_finite = PackTransposedPairs(keys.first, count, dim, packed);
    const bool v_finite = PackPairs(keys.second, count, dim, packed + Numbers(shape_, count));
    return k_finite && v_finite;
  }

  void Run(const void* packed_queries, const void* packed_keys, const void* next_keys, float scale,
           const TileMask* mask, const SoftmaxState& state) override {
    const uint16_t* keys = static_cast<const uint16_t*>(packed_keys);
    const Bf16ForwardTask task{.q_RK = static_cast<const uint16_t*>(packed_queries),
                               .k_pairs = keys,
                               .v_pairs = keys + Numbers(shape_, shape_.keys),
                               .next_keys = next_keys,
                               .scale = scale,
                               .mask = mask,
                               .max_R = state.max_R,
                               .sum_R = state.sum_R,
                               .acc_RK = state.acc_RK};
    const auto compute = shape_.kernel == TileKernel::kAmx ? AmxForward : Avx512Forward;
    compute(ShapeOf(shape_), task, {s_.get(), p_.get()});
  }

 private:
  static constexpr size_t kScores = std::max(kAmxForwardScores, kAvx512ForwardScores);

  AttentionTileShape shape_;
  AlignedBuffer<float> s_;
  AlignedBuffer<uint16_t> p_;
};

// q and dout are wanted twice: in rows for the scores, where queries are the left factor, and in
// pairs of rows for the gradients of the keys, where they are the right one. The gradients of the
// keys are row-major here and transposed in AmxBackwardTile, so that each kernel can use p and ds
// in the layout that its softmax writes.
class Avx512BackwardTile : public AttentionBackwardTile {
 public:
  explicit Avx512BackwardTile(const AttentionTileShape& shape)
      : shape_(shape),
        s_(MakeAlignedBuffer<float>(Avx512BackwardScores(shape.padded_dim()))),
        dk_NK_(MakeAlignedBuffer<float>(Numbers(shape, shape.keys))),
        dv_NK_(MakeAlignedBuffer<float>(Numbers(shape, shape.keys))),
        p_(MakeAlignedBuffer<uint16_t>(kAvx512BackwardPairs)),
        packed_keys_(MakeAlignedBuffer<uint16_t>(3 * Numbers(shape, shape.keys))) {}

  bool PackQueries(const AttentionRows& queries, void* packed_queries) override {
    uint16_t* packed = static_cast<uint16_t*>(packed_queries);
    const size_t size = Numbers(shape_, shape_.rows);
    const int rows = shape_.rows;
    const bool q_finite = Gather(shape_, queries.first, rows, packed);
    const bool dout_finite = Gather(shape_, queries.second, rows, packed + size);
    PackPairs(queries.first, rows, shape_.head_dim, packed + 2 * size);
    PackPairs(queries.second, rows, shape_.head_dim, packed + 3 * size);
    return q_finite && dout_finite;
  }

  // Gradients are not cleared: the first block of queries that sees 32 keys sets them.
  bool StartKeys(const AttentionRows& keys) override {
    std::fill_n(keys_started_, shape_.keys / 32, false);
    return PackBackwardKeys(shape_, keys, packed_keys_.get());
  }

  void Run(const void* packed_queries, const void* /*next_queries*/, float scale,
           const TileMask* mask, const float* lse_R, const float* delta_R,
           float* const* dq_rows) override {
    const uint16_t* queries = static_cast<const uint16_t*>(packed_queries);
    const size_t size = Numbers(shape_, shape_.rows), keys = Numbers(shape_, shape_.keys);
    const Avx512BackwardTask task{.q_RK = queries,
                                  .dout_RK = queries + size,
                                  .q_RK_pairs = queries + 2 * size,
                                  .dout_RK_pairs = queries + 3 * size,
                                  .k_pairs = packed_keys_.get(),
                                  .v_pairs = packed_keys_.get() + keys,
                                  .k_NK_pairs = packed_keys_.get() + 2 * keys,
                                  .scale = scale,
                                  .mask = mask,
                                  .lse_R = lse_R,
                                  .delta_R = delta_R,
                                  .dk_NK = dk_NK_.get(),
                                  .dv_NK = dv_NK_.get(),
                                  .keys_started = keys_started_,
                                  .dq_rows = dq_rows,
                                  .head_dim = shape_.head_dim};
    Avx512Backward(ShapeOf(shape_), task, {s_.get(), p_.get()});
  }

  void KeyGradients(float* dk_NK, float* dv_NK) override {
    const size_t numbers = Numbers(shape_, 32);
    for (size_t block = 0; block < static_cast<size_t>(shape_.keys) / 32; ++block) {
      const size_t at = block * numbers;
      if (keys_started_[block]) {
        std::copy_n(dk_NK_.get() + at, numbers, dk_NK + at);
        std::copy_n(dv_NK_.get() + at, numbers, dv_NK + at);
      } else {
        std::fill_n(dk_NK + at, numbers, 0.0f);
        std::fill_n(dv_NK + at, numbers, 0.0f);
      }
      keys_started_[block] = false;
    }
  }

 private:
  AttentionTileShape shape_;
  AlignedBuffer<float> s_, dk_NK_, dv_NK_;
  AlignedBuffer<uint16_t> p_, packed_keys_;
  bool keys_started_[kBf16MostKeys / 32] = {};
};

// q and dout in rows for the scores, and transposed: dk^T += q^T ds and dv^T += dout^T p have p and
// ds as right factors, in pairs of queries, as the softmax writes them two rows at a time.
class AmxBackwardTile : public AttentionBackwardTile {
 public:
  explicit AmxBackwardTile(const AttentionTileShape& shape)
      : shape_(shape),
        s_(MakeAlignedBuffer<float>(kAmxBackwardScores)),
        dk_KN_(MakeAlignedBuffer<float>(Numbers(shape, shape.keys))),
        dv_KN_(MakeAlignedBuffer<float>(Numbers(shape, shape.keys))),
        p_(MakeAlignedBuffer<uint16_t>(static_cast<size_t>(shape.rows) *
                                       (static_cast<size_t>(shape.keys) + kAmxBackwardPairs))),
        packed_keys_(MakeAlignedBuffer<uint16_t>(3 * Numbers(shape, shape.keys))) {}

  bool PackQueries(const AttentionRows& queries, void* packed_queries) override {
    uint16_t* packed = static_cast<uint16_t*>(packed_queries);
    const size_t size = Numbers(shape_, shape_.rows);
    const int rows = shape_.rows, dim = shape_.padded_dim();
    const bool q_finite = AmxPackRows(queries.first, rows, shape_.head_dim, packed);
    const bool dout_finite = AmxPackRows(queries.second, rows, shape_.head_dim, packed + size);
    AmxTransposeRows(packed, rows, dim, packed + 2 * size);
    AmxTransposeRows(packed + size, rows, dim, packed + 3 * size);
    return q_finite && dout_finite;
  }

  bool StartKeys(const AttentionRows& keys) override {
    std::fill_n(keys_started_, shape_.keys / 32, false);
    return PackBackwardKeys(shape_, keys, packed_keys_.get());
  }

  void Run(const void* packed_queries, const void* next_queries, float scale, const TileMask* mask,
           const float* lse_R, const float* delta_R, float* const* dq_rows) override {
    const uint16_t* queries = static_cast<const uint16_t*>(packed_queries);
    const size_t size = Numbers(shape_, shape_.rows);
    const AmxBackwardTask task{.q_RK_rows = queries,
                               .dout_RK_rows = queries + size,
                               .q_KR_rows = queries + 2 * size,
                               .dout_KR_rows = queries + 3 * size,
                               .k_pairs = Keys(0),
                               .v_pairs = Keys(1),
                               .k_NK_pairs = Keys(2),
                               .next_queries = next_queries,
                               .scale = scale,
                               .mask = mask,
                               .lse_R = lse_R,
                               .delta_R = delta_R,
                               .dk_KN = dk_KN_.get(),
                               .dv_KN = dv_KN_.get(),
                               .keys_started = keys_started_,
                               .dq_rows = dq_rows,
                               .head_dim = shape_.head_dim};
    AmxBackward(ShapeOf(shape_), task, {s_.get(), p_.get()});
  }

  void KeyGradients(float* dk_NK, float* dv_NK) override {
    const int count = shape_.keys, dim = shape_.padded_dim();
    AmxTransposeBlocks(dk_KN_.get(), keys_started_, count, dim, dk_NK);
    AmxTransposeBlocks(dv_KN_.get(), keys_started_, count, dim, dv_NK);
    std::fill_n(keys_started_, count / 32, false);
  }

 private:
  uint16_t* Keys(size_t which) { return packed_keys_.get() + which * Numbers(shape_, shape_.keys); }

  AttentionTileShape shape_;
  AlignedBuffer<float> s_, dk_KN_, dv_KN_;
  AlignedBuffer<uint16_t> p_, packed_keys_;
  bool keys_started_[kBf16MostKeys / 32] = {};
};

}  // namespace

void UnpackKeys(const AttentionTileShape& shape, const void* packed_keys, uint16_t* k_NK,
                uint16_t* v_NK) noexcept {
  constexpr ptrdiff_t kRegister = 512;
  // The inverse of PackTransposedPairs for k and of PackPairs for v: k pairs neighbours of a row, v
  // rows n and n + 16.
  const ptrdiff_t keys = shape.keys, dim = shape.padded_dim();
  const uint16_t* k_pairs = static_cast<const uint16_t*>(packed_keys);
  const uint16_t* v_pairs = k_pairs + keys * dim;
  for (ptrdiff_t n = 0; n < keys; ++n) {
    for (ptrdiff_t k = 0; k < dim; ++k) {
      const ptrdiff_t k_register = n / 16 * (dim / 32) + k / 32;
      const ptrdiff_t v_register = k / 16 * (keys / 32) + n / 32;
      *k_NK++ = k_pairs[k_register * kRegister + k % 32 / 2 * 32 + n % 16 * 2 + k % 2];
      *v_NK++ = v_pairs[v_register * kRegister + n % 16 * 32 + k % 16 * 2 + n % 32 / 16];
    }
  }
}

std::unique_ptr<AttentionForwardTile> MakeBf16ForwardTile(const AttentionTileShape& shape) {
  return std::make_unique<Bf16ForwardTile>(shape);
}
std::unique_ptr<AttentionBackwardTile> MakeAvx512BackwardTile(const AttentionTileShape& shape) {
  return std::make_unique<Avx512BackwardTile>(shape);
}
std::unique_ptr<AttentionBackwardTile> MakeAmxBackwardTile(const AttentionTileShape& shape) {
  return std::make_unique<AmxBackwardTile>(shape);
}

}  // namespace lwm::kernels
