#include "lwm/kernels/attention_tile.h"

#include <map>
#include <memory>

#include "lwm/base/error.h"
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
size_t RowCount(const AttentionTileShape& s) {
  return static_cast<size_t>(s.rows) * static_cast<size_t>(s.padded_dim());
}
size_t RowsBytes(const AttentionTileShape& s) {
  return s.query_bytes() > s.key_bytes() ? s.query_bytes() : s.key_bytes();
}

bool Gather(const AttentionTileShape& s, const void* const* rows, int count, void* out) {
  return GatherRows(s.type, rows, count, s.head_dim, s.padded_dim(), out);
}

template <class Tile>
Tile& ThreadTile(const AttentionTileShape& shape) {
  thread_local std::map<AttentionTileShape, std::unique_ptr<Tile>> tiles;
  constexpr size_t kKept = 8;  // a process uses few shapes; scratch of more would only hold memory
  if (tiles.size() >= kKept && !tiles.contains(shape)) tiles.clear();
  std::unique_ptr<Tile>& tile = tiles[shape];
  if (!tile) tile = std::make_unique<Tile>(shape);
  return *tile;
}

}  // namespace

AttentionForwardTile::AttentionForwardTile(const AttentionTileShape& shape)
    : shape_(shape),
      scores_(ThreadTileMatmul(Scores(shape))),
      values_(ThreadTileMatmul(OverKeys(shape, true))),
      s_RN_(MakeAlignedBuffer<float>(ScoreCount(shape))),
      p_RN_(MakeAlignedBuffer<char>(ScoreBytes(shape))),
      rows_(MakeAlignedBuffer<char>(RowsBytes(shape))) {
  LWM_CHECK(
      scores_.packed_bytes() <= shape.key_bytes() && values_.packed_bytes() <= shape.key_bytes(),
      "packed tiles of ", shape.keys, " keys are larger than planned");
}

bool AttentionForwardTile::PackQueries(const AttentionRows& queries, void* packed_queries) {
  return Gather(shape_, queries.first, shape_.rows, packed_queries);
}

bool AttentionForwardTile::PackKeys(const AttentionRows& keys, void* packed_keys) {
  char* packed = static_cast<char*>(packed_keys);
  bool finite = Gather(shape_, keys.first, shape_.keys, rows_.get());
  scores_.Pack(rows_.get(), true, packed);
  finite = Gather(shape_, keys.second, shape_.keys, rows_.get()) && finite;
  values_.Pack(rows_.get(), false, packed + shape_.key_bytes());
  return finite;
}

void AttentionForwardTile::Run(const void* packed_queries, const void* packed_keys, float scale,
                               const TileMask* mask, float* max_R, float* sum_R, float* acc_RK) {
  scores_.Run(packed_queries, packed_keys, s_RN_.get());
  OnlineSoftmaxTile(shape_.type, shape_.rows, shape_.keys, shape_.padded_dim(), scale, mask,
                    s_RN_.get(), max_R, sum_R, acc_RK, p_RN_.get());
  values_.Run(p_RN_.get(), static_cast<const char*>(packed_keys) + shape_.key_bytes(), acc_RK);
}

AttentionBackwardTile::AttentionBackwardTile(const AttentionTileShape& shape)
    : shape_(shape),
      scores_(ThreadTileMatmul(Scores(shape))),
      query_gradient_(ThreadTileMatmul(OverKeys(shape, false))),
      key_gradient_(ThreadTileMatmul(OverQueries(shape))),
      s_RN_(MakeAlignedBuffer<float>(ScoreCount(shape))),
      dp_RN_(MakeAlignedBuffer<float>(ScoreCount(shape))),
      dq_RK_(MakeAlignedBuffer<float>(RowCount(shape))),
      p_RN_(MakeAlignedBuffer<char>(ScoreBytes(shape))),
      ds_RN_(MakeAlignedBuffer<char>(ScoreBytes(shape))),
      transposed_NR_(MakeAlignedBuffer<char>(ScoreBytes(shape))),
      rows_(MakeAlignedBuffer<char>(RowsBytes(shape))) {
  LWM_CHECK(scores_.packed_bytes() <= shape.key_bytes() &&
                query_gradient_.packed_bytes() <= shape.key_bytes() &&
                key_gradient_.packed_bytes() <= shape.query_bytes(),
            "packed tiles of ", shape.rows, " x ", shape.keys, " are larger than planned");
}

bool AttentionBackwardTile::PackQueries(const AttentionRows& queries, void* packed_queries) {
  char* packed = static_cast<char*>(packed_queries);
  const size_t bytes = shape_.query_bytes();
  const bool q_finite = Gather(shape_, queries.first, shape_.rows, packed);
  const bool dout_finite = Gather(shape_, queries.second, shape_.rows, packed + bytes);
  key_gradient_.Pack(packed, false, packed + 2 * bytes);
  key_gradient_.Pack(packed + bytes, false, packed + 3 * bytes);
  return q_finite && dout_finite;
}

bool AttentionBackwardTile::PackKeys(const AttentionRows& keys, void* packed_keys) {
  char* packed = static_cast<char*>(packed_keys);
  const size_t bytes = shape_.key_bytes();
  bool finite = Gather(shape_, keys.first, shape_.keys, rows_.get());
  scores_.Pack(rows_.get(), true, packed);
  query_gradient_.Pack(rows_.get(), false, packed + 2 * bytes);
  finite = Gather(shape_, keys.second, shape_.keys, rows_.get()) && finite;
  scores_.Pack(rows_.get(), true, packed + bytes);
  return finite;
}

void AttentionBackwardTile::Run(const void* packed_queries, const void* packed_keys, float scale,
                                const TileMask* mask, const float* lse_R, const float* delta_R,
                                float* dk_NK, float* dv_NK) {
  const char* queries = static_cast<const char*>(packed_queries);
  const char* keys = static_cast<const char*>(packed_keys);
  const size_t bytes = shape_.query_bytes();
  scores_.Run(queries, keys, s_RN_.get());
  scores_.Run(queries + bytes, keys + shape_.key_bytes(), dp_RN_.get());
  SoftmaxGradientTile(shape_.type, shape_.rows, shape_.keys, scale, mask, s_RN_.get(), dp_RN_.get(),
                      lse_R, delta_R, p_RN_.get(), ds_RN_.get());
  TransposeTile(shape_.type, shape_.rows, shape_.keys, p_RN_.get(), transposed_NR_.get());
  key_gradient_.Run(transposed_NR_.get(), queries + 3 * bytes, dv_NK);
  TransposeTile(shape_.type, shape_.rows, shape_.keys, ds_RN_.get(), transposed_NR_.get());
  key_gradient_.Run(transposed_NR_.get(), queries + 2 * bytes, dk_NK);
}

const float* AttentionBackwardTile::QueryGradient(const void* packed_keys) {
  const char* keys = static_cast<const char*>(packed_keys);
  query_gradient_.Run(ds_RN_.get(), keys + 2 * shape_.key_bytes(), dq_RK_.get());
  return dq_RK_.get();
}

AttentionForwardTile& ThreadForwardTile(const AttentionTileShape& shape) {
  return ThreadTile<AttentionForwardTile>(shape);
}
AttentionBackwardTile& ThreadBackwardTile(const AttentionTileShape& shape) {
  return ThreadTile<AttentionBackwardTile>(shape);
}

}  // namespace lwm::kernels
