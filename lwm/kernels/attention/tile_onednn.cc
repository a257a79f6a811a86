#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/attention/tile.h"
#include "lwm/kernels/tile_layout.h"

namespace lwm::kernels {
namespace {

// C_RN = q_RK k_NK^T, and the same product for dout and v.
TileMatmulShape Scores(const AttentionTileShape& s) {
  return {s.type, s.rows, s.keys, s.padded_dim(), false};
}

// C_RK = x_RN y_NK.
TileMatmulShape OverKeys(const AttentionTileShape& s, bool accumulate) {
  return {s.type, s.rows, s.padded_dim(), s.keys, accumulate};
}

// C_NK += x_NR y_RK.
TileMatmulShape OverQueries(const AttentionTileShape& s) {
  return {s.type, s.keys, s.padded_dim(), s.rows, true};
}

size_t ScoreCount(const AttentionTileShape& s) {
  return static_cast<size_t>(s.rows) * static_cast<size_t>(s.keys);
}
size_t ScoreBytes(const AttentionTileShape& s) { return ScoreCount(s) * BytesPerElement(s.type); }
size_t Numbers(const AttentionTileShape& s, int rows) {
  return static_cast<size_t>(rows) * static_cast<size_t>(s.padded_dim());
}
bool Gather(const AttentionTileShape& s, const void* const* rows, int count, void* out) {
  return GatherRows(s.type, rows, count, s.head_dim, s.padded_dim(), out);
}

// Three passes over a tile: scores, softmax, values. The whole [rows, keys] scores exist between
// them, since oneDNN computes a whole product at a time.
class OneDnnForwardTile : public AttentionForwardTile {
 public:
  explicit OneDnnForwardTile(const AttentionTileShape& shape)
      : shape_(shape),
        scores_(ThreadTileMatmul(Scores(shape))),
        values_(ThreadTileMatmul(OverKeys(shape, true))),
        s_RN_(MakeAlignedBuffer<float>(ScoreCount(shape))),
        p_RN_(MakeAlignedBuffer<char>(ScoreBytes(shape))),
        rows_NK_(MakeAlignedBuffer<char>(shape.key_bytes())) {
    LWM_CHECK(std::max(scores_.packed_bytes(), values_.packed_bytes()) <= shape.key_bytes(),
              "packed tiles of ", shape.keys, " keys are larger than planned");
  }

  bool PackQueries(const AttentionRows& queries, void* packed_queries) override {
    return Gather(shape_, queries.first, shape_.rows, packed_queries);
  }

  bool PackKeys(const AttentionRows& keys, void* packed_keys) override {
    char* packed = static_cast<char*>(packed_keys);
    const bool k_finite = Gather(shape_, keys.first, shape_.keys, rows_NK_.get());
    scores_.Pack(rows_NK_.get(), true, packed);
    const bool v_finite = Gather(shape_, keys.second, shape_.keys, rows_NK_.get());
    values_.Pack(rows_NK_.get(), false, packed + shape_.key_bytes());
    return k_finite && v_finite;
  }

  void Run(const void* packed_queries, const void* packed_keys, const void* /*next_keys*/,
           float scale, const TileMask* mask, const SoftmaxState& state) override {
    scores_.Run(packed_queries, packed_keys, s_RN_.get());
    OnlineSoftmaxTile({.type = shape_.type,
                       .rows = shape_.rows,
                       .keys = shape_.keys,
                       .dim = shape_.padded_dim(),
                       .scale = scale,
                       .mask = mask,
                       .s_RN = s_RN_.get(),
                       .state = state,
                       .p_RN = p_RN_.get()});
    const char* v = static_cast<const char*>(packed_keys) + shape_.key_bytes();
    values_.Run(p_RN_.get(), v, state.acc_RK);
  }

 private:
  AttentionTileShape shape_;
  TileMatmul& scores_;
  TileMatmul& values_;
  AlignedBuffer<float> s_RN_;
  AlignedBuffer<char> p_RN_, rows_NK_;
};

// Five products: s and dp, then dv, dk and dq. p and ds are transposed in between, since oneDNN's
// left factor is plain row-major here and the gradients of the keys sum over the queries.
class OneDnnBackwardTile : public AttentionBackwardTile {
 public:
  explicit OneDnnBackwardTile(const AttentionTileShape& shape)
      : shape_(shape),
        scores_(ThreadTileMatmul(Scores(shape))),
        query_gradient_(ThreadTileMatmul(OverKeys(shape, false))),
        key_gradient_(ThreadTileMatmul(OverQueries(shape))),
        s_RN_(MakeAlignedBuffer<float>(ScoreCount(shape))),
        dp_RN_(MakeAlignedBuffer<float>(ScoreCount(shape))),
        dq_RK_(MakeAlignedBuffer<float>(Numbers(shape, shape.rows))),
        dk_NK_(MakeAlignedBuffer<float>(Numbers(shape, shape.keys))),
        dv_NK_(MakeAlignedBuffer<float>(Numbers(shape, shape.keys))),
        p_RN_(MakeAlignedBuffer<char>(ScoreBytes(shape))),
        ds_RN_(MakeAlignedBuffer<char>(ScoreBytes(shape))),
        transposed_NR_(MakeAlignedBuffer<char>(ScoreBytes(shape))),
        rows_NK_(MakeAlignedBuffer<char>(shape.key_bytes())),
        packed_keys_(MakeAlignedBuffer<char>(3 * shape.key_bytes())) {
    LWM_CHECK(
        std::max(scores_.packed_bytes(), query_gradient_.packed_bytes()) <= shape.key_bytes() &&
            key_gradient_.packed_bytes() <= shape.query_bytes(),
        "packed tiles of ", shape.rows, " x ", shape.keys, " are larger than planned");
  }

  bool PackQueries(const AttentionRows& queries, void* packed_queries) override {
    char* packed = static_cast<char*>(packed_queries);
    const size_t bytes = shape_.query_bytes();
    const bool q_finite = Gather(shape_, queries.first, shape_.rows, packed);
    const bool dout_finite = Gather(shape_, queries.second, shape_.rows, packed + bytes);
    // Rows for s and dp, where queries are the left side; packed for dk and dv, where they are the
    // right.
    key_gradient_.Pack(packed, false, packed + 2 * bytes);
    key_gradient_.Pack(packed + bytes, false, packed + 3 * bytes);
    return q_finite && dout_finite;
  }

  bool StartKeys(const AttentionRows& keys) override {
    const bool k_finite = Gather(shape_, keys.first, shape_.keys, rows_NK_.get());
    scores_.Pack(rows_NK_.get(), true, Keys(0));
    query_gradient_.Pack(rows_NK_.get(), false, Keys(2));
    const bool v_finite = Gather(shape_, keys.second, shape_.keys, rows_NK_.get());
    scores_.Pack(rows_NK_.get(), true, Keys(1));
    std::fill_n(dk_NK_.get(), Numbers(shape_, shape_.keys), 0.0f);
    std::fill_n(dv_NK_.get(), Numbers(shape_, shape_.keys), 0.0f);
    return k_finite && v_finite;
  }

  void Run(const void* packed_queries, const void* /*next_queries*/, float scale,
           const TileMask* mask, const float* lse_R, const float* delta_R,
           float* const* dq_rows) override {
    const char* queries = static_cast<const char*>(packed_queries);
    const size_t bytes = shape_.query_bytes();
    // Needed at the end of this call: the products give the memory time.
    for (int r = 0; r < shape_.rows; ++r) {
      if (dq_rows[r]) FetchRow(dq_rows[r], sizeof(float) * static_cast<size_t>(shape_.head_dim));
    }
    scores_.Run(queries, Keys(0), s_RN_.get());
    scores_.Run(queries + bytes, Keys(1), dp_RN_.get());
    SoftmaxGradientTile({.type = shape_.type,
                         .rows = shape_.rows,
                         .keys = shape_.keys,
                         .scale = scale,
                         .mask = mask,
                         .s_RN = s_RN_.get(),
                         .dp_RN = dp_RN_.get(),
                         .lse_R = lse_R,
                         .delta_R = delta_R,
                         .p_RN = p_RN_.get(),
                         .ds_RN = ds_RN_.get()});
    TransposeTile(shape_.type, shape_.rows, shape_.keys, p_RN_.get(), transposed_NR_.get());
    // One buffer for both transposes: dv is complete before ds is transposed.
    key_gradient_.Run(transposed_NR_.get(), queries + 3 * bytes, dv_NK_.get());
    TransposeTile(shape_.type, shape_.rows, shape_.keys, ds_RN_.get(), transposed_NR_.get());
    key_gradient_.Run(transposed_NR_.get(), queries + 2 * bytes, dk_NK_.get());
    query_gradient_.Run(ds_RN_.get(), Keys(2), dq_RK_.get());
    // Not accumulated by the product: rows of dq are of head_dim numbers and lie anywhere.
    for (int r = 0; r < shape_.rows; ++r) {
      const float* dq_K = dq_RK_.get() + static_cast<ptrdiff_t>(r) * shape_.padded_dim();
      if (dq_rows[r]) AddRow(dq_K, shape_.head_dim, dq_rows[r]);
    }
  }

  void KeyGradients(float* dk_NK, float* dv_NK) override {
    const size_t numbers = Numbers(shape_, shape_.keys);
    std::copy_n(dk_NK_.get(), numbers, dk_NK);
    std::copy_n(dv_NK_.get(), numbers, dv_NK);
    std::fill_n(dk_NK_.get(), numbers, 0.0f);
    std::fill_n(dv_NK_.get(), numbers, 0.0f);
  }

 private:
  char* Keys(size_t which) { return packed_keys_.get() + which * shape_.key_bytes(); }

  AttentionTileShape shape_;
  TileMatmul& scores_;
  TileMatmul& query_gradient_;
  TileMatmul& key_gradient_;
  AlignedBuffer<float> s_RN_, dp_RN_, dq_RK_, dk_NK_, dv_NK_;
  AlignedBuffer<char> p_RN_, ds_RN_, transposed_NR_, rows_NK_;
  AlignedBuffer<char> packed_keys_;  // k, v for the scores, k for the gradient of the queries
};

}  // namespace

std::unique_ptr<AttentionForwardTile> MakeOneDnnForwardTile(const AttentionTileShape& shape) {
  return std::make_unique<OneDnnForwardTile>(shape);
}
std::unique_ptr<AttentionBackwardTile> MakeOneDnnBackwardTile(const AttentionTileShape& shape) {
  return std::make_unique<OneDnnBackwardTile>(shape);
}

}  // namespace lwm::kernels
