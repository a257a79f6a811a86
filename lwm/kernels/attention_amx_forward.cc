#include "lwm/kernels/attention_amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include "lwm/kernels/attention_amx-inl.h"

LWM_AMX_BEGIN
namespace lwm::kernels {
namespace {

// Hides what a row may not see, then gives the largest score of the row.
inline float BlockRowMax(const BlockMask& mask, const ActiveBlocks& active, int row, int r,
                         float* s) {
  __m512 low = _mm512_set1_ps(kMinusInfinity), high = low;
  for (int i = 0; i < active.count; ++i) {
    float* at = s + i * 1024 + r * 32;
    __m512 a = _mm512_load_ps(at), b = _mm512_load_ps(at + 16);
    if (active.masked[i]) {
      const __m512 hidden = _mm512_set1_ps(kMinusInfinity);
      a = _mm512_mask_mov_ps(hidden, mask.Seen(row, active.block[i] * 32), a);
      b = _mm512_mask_mov_ps(hidden, mask.Seen(row, active.block[i] * 32 + 16), b);
      _mm512_store_ps(at, a);
      _mm512_store_ps(at + 16, b);
    }
    low = _mm512_max_ps(low, a);
    high = _mm512_max_ps(high, b);
  }
  return _mm512_reduce_max_ps(_mm512_max_ps(low, high));
}

// p of one row into blocks of [32][32]; returns its sum.
inline float BlockRowExp(const ActiveBlocks& active, int r, float factor, float shift,
                         const float* s, uint16_t* p) {
  const __m512 c = _mm512_set1_ps(factor), b = _mm512_set1_ps(shift);
  __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0;
  for (int i = 0; i < active.count; ++i) {
    const float* at = s + i * 1024 + r * 32;
    const __m512 p0 = Exp2(_mm512_fmsub_ps(_mm512_load_ps(at), c, b));
    const __m512 p1 = Exp2(_mm512_fmsub_ps(_mm512_load_ps(at + 16), c, b));
    sum0 = _mm512_add_ps(sum0, p0);
    sum1 = _mm512_add_ps(sum1, p1);
    _mm512_store_si512(p + i * 1024 + r * 32, ToBf16(p0, p1));
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(sum0, sum1));
}

// One block of 32 queries on its way: scores, then row by row their softmax, then their values.
struct QueryBlockState {
  int row = 0;
  ActiveBlocks active;
  float* s;
  int rows_done = 32;
};

struct RunningSoftmax {
  const BlockMask& mask;
  int dim;
  float scale;
  float *max_R, *sum_R, *acc_RK;
  uint16_t* p;
  const char* next_keys;  // fetched into the second-level cache, a share with every row
  ptrdiff_t next_bytes_per_row;

  inline void Row(const QueryBlockState& block, int r) const {
    const int row = block.row + r;
    for (ptrdiff_t at = 0; at < next_bytes_per_row; at += 64) {
      _mm_prefetch(next_keys + row * next_bytes_per_row + at, _MM_HINT_T1);
    }
    const float row_max = BlockRowMax(mask, block.active, row, r, block.s) * scale;
    float running = max_R[row];
    if (row_max > running && running == kMinusInfinity) {  // the first keys: nothing decays
      max_R[row] = running = row_max;
    } else if (row_max > running) {
      const float decay = std::exp2((running - row_max) * kLog2E);
      const __m512 d = _mm512_set1_ps(decay);
      float* acc_K = acc_RK + static_cast<ptrdiff_t>(row) * dim;
      for (int k = 0; k < dim; k += 16) {
        _mm512_store_ps(acc_K + k, _mm512_mul_ps(d, _mm512_load_ps(acc_K + k)));
      }
      sum_R[row] *= decay;
      max_R[row] = running = row_max;
    }
    const float shift = running == kMinusInfinity ? 0.0f : running * kLog2E;
    sum_R[row] += BlockRowExp(block.active, r, scale * kLog2E, shift, block.s, p);
  }
  inline void RowsUpTo(QueryBlockState& block, int end) const {
    for (; block.rows_done < end; ++block.rows_done) Row(block, block.rows_done);
  }
};

// Scores of 32 queries with the active blocks, each stored as [32][32]. Between the products,
// between(done, all) does a share of other work, which the out-of-order core overlaps with them.
template <class Between>
inline void BlockScores(const uint16_t* q, int dim, const uint16_t* k_pairs,
                        const ActiveBlocks& active, float* s, const Between& between) {
  const int steps = dim / 32;
  for (int i = 0; i < active.count; ++i) {
    const uint16_t* k = k_pairs + active.block[i] * 2 * steps * kRegister;
    ZeroSums();
    for (int step = 0; step < steps; ++step) {
      Multiply(q + 32 * step, dim * 2, 16 * static_cast<ptrdiff_t>(dim), k + step * kRegister,
               steps * kRegister);
      between(i * steps + step + 1, active.count * steps);
    }
    StoreSums(s + i * 1024, 32);
  }
}

// acc [32, dim] += p v over the active blocks.
void BlockValues(const uint16_t* p, const uint16_t* v_pairs, int keys, int dim,
                 const ActiveBlocks& active, float* acc) {
  const ptrdiff_t key_steps = keys / 32;
  for (int k = 0; k < dim; k += 32) {
    LoadSums(acc + k, dim);
    const uint16_t* v = v_pairs + k / 16 * key_steps * kRegister;
    for (int i = 0; i < active.count; ++i) {
      Multiply(p + i * 1024, 64, kRegister, v + active.block[i] * kRegister, key_steps * kRegister);
    }
    StoreSums(acc + k, dim);
  }
}

}  // namespace

void AmxForward(const AmxShape& shape, const AmxForwardTask& task,
                const AmxScratch& scratch) noexcept {
  const TileRegisters registers;
  const BlockMask block_mask(task.mask, shape.keys);
  const ptrdiff_t key_bytes = ptrdiff_t{4} * shape.keys * shape.dim;
  const RunningSoftmax softmax{block_mask,
                               shape.dim,
                               task.scale,
                               task.max_R,
                               task.sum_R,
                               task.acc_RK,
                               scratch.p,
                               static_cast<const char*>(task.next_keys),
                               task.next_keys ? key_bytes / shape.rows : 0};
  QueryBlockState blocks[2];
  blocks[0].s = scratch.s;
  blocks[1].s = scratch.s + 32 * shape.keys;
  // The softmax of a block is spread over the score products of the next one.
  for (int row = 0, turn = 0; row <= shape.rows; row += 32, turn ^= 1) {
    QueryBlockState &next = blocks[turn], &now = blocks[turn ^ 1];
    next.active.count = 0;
    if (row < shape.rows) {
      next.row = row;
      next.active = block_mask.Active(row);
      next.rows_done = next.active.count > 0 ? 0 : 32;
      BlockScores(task.q_RK + static_cast<ptrdiff_t>(row) * shape.dim, shape.dim, task.k_pairs,
                  next.active, next.s,
                  [&](int done, int all) { softmax.RowsUpTo(now, 32 * done / all); });
    }
    if (row == 0 || now.active.count == 0) continue;
    softmax.RowsUpTo(now, 32);
    Fence();
    BlockValues(scratch.p, task.v_pairs, shape.keys, shape.dim, now.active,
                task.acc_RK + static_cast<ptrdiff_t>(now.row) * shape.dim);
  }
}

}  // namespace lwm::kernels
LWM_AMX_END

#endif
