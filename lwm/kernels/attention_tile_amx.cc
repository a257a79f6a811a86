#include <algorithm>

#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/attention_amx.h"
#include "lwm/kernels/attention_tile.h"
#include "lwm/kernels/tile_layout.h"

namespace lwm::kernels {
namespace {

size_t Numbers(const AttentionTileShape& s, int rows) {
  return static_cast<size_t>(rows) * static_cast<size_t>(s.padded_dim());
}
AmxShape ShapeOf(const AttentionTileShape& s) { return {s.rows, s.keys, s.padded_dim()}; }

bool Gather(const AttentionTileShape& s, const void* const* rows, int count, uint16_t* out) {
  return GatherRows(s.type, rows, count, s.head_dim, s.padded_dim(), out);
}

class AmxForwardTile : public AttentionForwardTile {
 public:
  explicit AmxForwardTile(const AttentionTileShape& shape)
      : shape_(shape),
        s_(MakeAlignedBuffer<float>(kAmxForwardScores)),
        p_(MakeAlignedBuffer<uint16_t>(kAmxForwardScores)) {}

  bool PackQueries(const AttentionRows& queries, void* packed_queries) override {
    return Gather(shape_, queries.first, shape_.rows, static_cast<uint16_t*>(packed_queries));
  }

  bool PackKeys(const AttentionRows& keys, void* packed_keys) override {
    uint16_t* packed = static_cast<uint16_t*>(packed_keys);
    const int count = shape_.keys, dim = shape_.head_dim;
    const bool k_finite = AmxPackTransposedPairs(keys.first, count, dim, packed);
    const bool v_finite = AmxPackPairs(keys.second, count, dim, packed + Numbers(shape_, count));
    return k_finite && v_finite;
  }

  void Run(const void* packed_queries, const void* packed_keys, const void* next_keys, float scale,
           const TileMask* mask, float* max_R, float* sum_R, float* acc_RK) override {
    const uint16_t* keys = static_cast<const uint16_t*>(packed_keys);
    const AmxForwardTask task{static_cast<const uint16_t*>(packed_queries),
                              keys,
                              keys + Numbers(shape_, shape_.keys),
                              next_keys,
                              scale,
                              mask,
                              max_R,
                              sum_R,
                              acc_RK};
    AmxForward(ShapeOf(shape_), task, {s_.get(), p_.get()});
  }

 private:
  AttentionTileShape shape_;
  AlignedBuffer<float> s_;
  AlignedBuffer<uint16_t> p_;
};

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
    const int count = shape_.keys, dim = shape_.head_dim;
    const bool k_finite = AmxPackTransposedPairs(keys.first, count, dim, Keys(0));
    AmxPackPairs(keys.first, count, dim, Keys(2));
    const bool v_finite = AmxPackTransposedPairs(keys.second, count, dim, Keys(1));
    std::fill_n(keys_started_, count / 32, false);
    return k_finite && v_finite;
  }

  void Run(const void* packed_queries, const void* next_queries, float scale, const TileMask* mask,
           const float* lse_R, const float* delta_R, float* const* dq_rows) override {
    const uint16_t* queries = static_cast<const uint16_t*>(packed_queries);
    const size_t size = Numbers(shape_, shape_.rows);
    const AmxBackwardTask task{queries,
                               queries + size,
                               queries + 2 * size,
                               queries + 3 * size,
                               Keys(0),
                               Keys(1),
                               Keys(2),
                               next_queries,
                               scale,
                               mask,
                               lse_R,
                               delta_R,
                               dk_KN_.get(),
                               dv_KN_.get(),
                               keys_started_,
                               dq_rows,
                               shape_.head_dim};
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
  bool keys_started_[kAmxMostKeys / 32] = {};
};

}  // namespace

void UnpackAmxKeys(const AttentionTileShape& shape, const void* packed_keys, uint16_t* k_NK,
                   uint16_t* v_NK) noexcept {
  constexpr ptrdiff_t kRegister = 512;
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

std::unique_ptr<AttentionForwardTile> MakeAmxForwardTile(const AttentionTileShape& shape) {
  return std::make_unique<AmxForwardTile>(shape);
}
std::unique_ptr<AttentionBackwardTile> MakeAmxBackwardTile(const AttentionTileShape& shape) {
  return std::make_unique<AmxBackwardTile>(shape);
}

}  // namespace lwm::kernels
