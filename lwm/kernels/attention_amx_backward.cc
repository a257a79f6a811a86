#include "lwm/kernels/attention_amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include "lwm/kernels/attention_amx-inl.h"

LWM_AMX_BEGIN
namespace lwm::kernels {
namespace {

// Rounded to nearest, ties away from zero: the bf16 number is the upper half of every lane.
inline __m512i RoundUpper(__m512 x) {
  return _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
}

// The upper halves of both, alternating. Cheaper than the conversion instruction with a shuffle.
inline __m512i Alternate(__m512i even, __m512i odd) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm512_ternarylogic_epi32(upper, odd, _mm512_srli_epi32(even, 16), 0xea);  // a & b | c
}

// 16 of p and ds, their upper halves rounded.
struct Numbers {
  inline void Keep(__mmask16 seen) {
    p = _mm512_maskz_mov_epi32(seen, p);
    ds = _mm512_maskz_mov_epi32(seen, ds);
  }
  __m512i p, ds;
};

// p and ds of one tile pair, as the three products of the gradients read them.
struct GradientFactors {
  const BlockMask& mask;
  const AmxShape& shape;
  float scale;
  const float *shift_R, *scaled_delta_R;  // lse in powers of 2, scale * delta
  uint16_t *p_RN_pairs, *ds_RN_pairs, *ds_RN_rows;

  // Where block `keys` of 32 keys and block `row` / 32 of queries lie; the second 16 keys, or rows,
  // are PairsNext, or RowsNext, further.
  ptrdiff_t PairsNext() const { return shape.rows / 32 * kRegister; }
  ptrdiff_t RowsNext() const { return shape.keys / 32 * kRegister; }
  ptrdiff_t Pairs(int keys, int row) const { return 2 * keys * PairsNext() + row / 32 * kRegister; }
  ptrdiff_t Rows(int keys, int row) const { return row / 16 * RowsNext() + keys * kRegister; }

  // Where rows `row` + r and `row` + r + 1 of block `keys` go.
  inline void Store(int keys, int row, int r, const Numbers (&x)[2][2]) const {
    uint16_t* const rows = ds_RN_rows + Rows(keys, row + r) + r % 16 * 32;
    _mm512_store_si512(rows, Alternate(x[0][0].ds, x[0][1].ds));
    _mm512_store_si512(rows + 32, Alternate(x[1][0].ds, x[1][1].ds));
    const ptrdiff_t left = Pairs(keys, row) + r / 2 * 32, right = left + PairsNext();
    _mm512_store_si512(p_RN_pairs + left, Alternate(x[0][0].p, x[1][0].p));
    _mm512_store_si512(p_RN_pairs + right, Alternate(x[0][1].p, x[1][1].p));
    _mm512_store_si512(ds_RN_pairs + left, Alternate(x[0][0].ds, x[1][0].ds));
    _mm512_store_si512(ds_RN_pairs + right, Alternate(x[0][1].ds, x[1][1].ds));
  }

  // Rows `row` + r and `row` + r + 1 of block `i` of the active ones, whose scores are s and dp.
  inline void TwoRows(const ActiveBlocks& active, int i, int row, int r, const float* s,
                      const float* dp) const {
    const int keys = active.block[i];
    const RowConstants even(*this, row + r), odd(*this, row + r + 1);
    s += r * 32;
    dp += r * 32;
    Numbers x[2][2] = {{even.Of(s, dp), even.Of(s + 16, dp + 16)},
                       {odd.Of(s + 32, dp + 32), odd.Of(s + 48, dp + 48)}};
    if (active.masked[i]) {
      x[0][0].Keep(mask.Seen(row + r, keys * 32));
      x[0][1].Keep(mask.Seen(row + r, keys * 32 + 16));
      x[1][0].Keep(mask.Seen(row + r + 1, keys * 32));
      x[1][1].Keep(mask.Seen(row + r + 1, keys * 32 + 16));
    }
    Store(keys, row, r, x);
  }

 private:
  struct RowConstants {
    RowConstants(const GradientFactors& f, int row)
        : factor(_mm512_set1_ps(f.scale * kLog2E)),
          scale(_mm512_set1_ps(f.scale)),
          shift(_mm512_set1_ps(f.shift_R[row])),
          delta(_mm512_set1_ps(f.scaled_delta_R[row])) {}
    inline Numbers Of(const float* s, const float* dp) const {
      const __m512 p = Exp2(_mm512_fmsub_ps(_mm512_load_ps(s), factor, shift));
      const __m512 ds = _mm512_mul_ps(p, _mm512_fmsub_ps(_mm512_load_ps(dp), scale, delta));
      return {RoundUpper(p), RoundUpper(ds)};
    }
    __m512 factor, scale, shift, delta;
  };
};

struct QueryBlocks {
  int count = 0;
  int row[kMaxBlocks];
};

// sums_KN [blocks of 32 x 32] += x_KR y_RN for the block `keys`, over the queries that see it.
void AddKeyGradient(const GradientFactors& factors, int keys, const QueryBlocks& active,
                    const uint16_t* x_KR_rows, const uint16_t* y_RN_pairs, bool started,
                    float* sums_KN) {
  const AmxShape& shape = factors.shape;
  for (int k = 0; k < shape.dim; k += 32) {
    float* sums = sums_KN + (k / 32 * (shape.keys / 32) + keys) * 1024;
    if (started) {
      LoadSums(sums, 32);
    } else {
      ZeroSums();
    }
    for (int i = 0; i < active.count; ++i) {
      const int row = active.row[i];
      Multiply(x_KR_rows + k / 16 * factors.PairsNext() + row / 32 * kRegister, 64,
               factors.PairsNext(), y_RN_pairs + factors.Pairs(keys, row), factors.PairsNext());
    }
    StoreSums(sums, 32);
  }
}

// Products and softmax of a tile pair, one beside the other: while the tile registers multiply for
// one group of blocks, the vector registers work on the group before it.
//
//   round r, group by group:  scores of the queries of block r with the keys of the group
//                             softmax of the group before        (spread over the products)
//                             a share of the gradient of the queries of block r - 2
class QueryRounds {
 public:
  QueryRounds(const AmxShape& shape, const AmxBackwardTask& task, const GradientFactors& factors,
              float* scratch)
      : shape_(shape),
        task_(task),
        factors_(factors),
        steps_(shape.dim / 32),
        sums_(scratch + 4 * kGroupNumbers),
        fetch_(static_cast<const char*>(task.next_queries)) {
    for (int i = 0; i < 2; ++i) {
      groups_[i].s = scratch + 2 * i * kGroupNumbers;
      groups_[i].dp = groups_[i].s + kGroupNumbers;
    }
    // The next queries come into the second-level cache in equal pieces, one with each two rows.
    const ptrdiff_t pieces = ptrdiff_t{shape.rows / 2} * (shape.keys / 32);
    const ptrdiff_t bytes = ptrdiff_t{8} * shape.rows * shape.dim;
    fetch_bytes_ = fetch_ ? (bytes / pieces + 63) / 64 * 64 : 0;
    fetch_end_ = fetch_ + (fetch_ ? bytes : 0);
  }

  // seen_by: for each block of keys, the blocks of queries that see some of it
  void Run(QueryBlocks* seen_by) {
    const int rounds = shape_.rows / 32 + 2;
    for (int round = 0; round < rounds; ++round) {
      ActiveBlocks& active = active_[round % 3];
      active.count = 0;
      if (32 * round < shape_.rows) active = factors_.mask.Active(32 * round);
      for (int i = 0; i < active.count; ++i) {
        QueryBlocks& queries = seen_by[active.block[i]];
        queries.row[queries.count++] = 32 * round;
      }
      Round(round, active, round < 2 ? nullptr : &active_[(round + 1) % 3]);
    }
  }

 private:
  static constexpr int kGroupBlocks = 4;
  static constexpr ptrdiff_t kGroupNumbers = kGroupBlocks * 1024;
  static_assert(4 * kGroupNumbers + 2048 <= static_cast<ptrdiff_t>(kAmxBackwardScores));

  struct Group {
    int row = 0, first = 0, last = 0;  // of the active blocks
    const ActiveBlocks* active = nullptr;
    float *s, *dp;
    int done = 0;  // steps of two rows
    int all() const { return 16 * (last - first); }
  };

  void Round(int round, const ActiveBlocks& active, const ActiveBlocks* finished) {
    const int groups = std::max(1, (active.count + kGroupBlocks - 1) / kGroupBlocks);
    for (int i = 0; i < groups; ++i) {
      Group& group = groups_[turn_];
      pending_ = &groups_[turn_ ^ 1];
      group = {32 * round, i * kGroupBlocks, std::min((i + 1) * kGroupBlocks, active.count),
               &active,    group.s,          group.dp};
      const int from = steps_ * i / groups, to = finished ? steps_ * (i + 1) / groups : from;
      ticks_ = 0;
      all_ticks_ = 2 * steps_ * (group.last - group.first);
      if (finished) all_ticks_ += (to - from) * finished->count;
      const ptrdiff_t at = ptrdiff_t{32} * round * shape_.dim;
      Scores(task_.q_RK + at, task_.k_pairs, group, group.s);
      Scores(task_.dout_RK + at, task_.v_pairs, group, group.dp);
      for (int k = from; k < to; ++k) AddQueryGradient(32 * (round - 2), 32 * k, *finished);
      SoftmaxUpTo(pending_->all());
      Fence();
      turn_ ^= 1;
    }
  }

  inline void Scores(const uint16_t* x, const uint16_t* y_pairs, const Group& group, float* out) {
    for (int i = group.first; i < group.last; ++i, out += 1024) {
      const uint16_t* y = y_pairs + group.active->block[i] * 2 * steps_ * kRegister;
      ZeroSums();
      for (int step = 0; step < steps_; ++step) {
        Multiply(x + 32 * step, shape_.dim * 2, 16 * static_cast<ptrdiff_t>(shape_.dim),
                 y + step * kRegister, steps_ * kRegister);
        Tick();
      }
      StoreSums(out, 32);
    }
  }

  inline void AddQueryGradient(int row, int k, const ActiveBlocks& active) {
    if (active.count == 0) return;
    ZeroSums();
    for (int i = 0; i < active.count; ++i) {
      Multiply(factors_.ds_RN_rows + factors_.Rows(active.block[i], row), 64, factors_.RowsNext(),
               task_.k_NK_pairs + k / 16 * factors_.RowsNext() + active.block[i] * kRegister,
               factors_.RowsNext());
      Tick();
    }
    float* sums = sums_ + k / 32 % 2 * 1024;
    StoreSums(sums, 32);
    Fence();
    const __mmask16 low = Columns(task_.head_dim - k), high = Columns(task_.head_dim - k - 16);
    for (int r = 0; r < 32; ++r, sums += 32) {
      if (!task_.dq_rows[row + r]) continue;
      float* dq = task_.dq_rows[row + r] + k;
      const __m512 a = _mm512_maskz_loadu_ps(low, dq), b = _mm512_maskz_loadu_ps(high, dq + 16);
      _mm512_mask_storeu_ps(dq, low, _mm512_add_ps(a, _mm512_load_ps(sums)));
      _mm512_mask_storeu_ps(dq + 16, high, _mm512_add_ps(b, _mm512_load_ps(sums + 16)));
    }
  }
  static __mmask16 Columns(int count) {
    return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
  }

  // One product is under way: time for a share of the softmax.
  inline void Tick() { SoftmaxUpTo(pending_->all() * ++ticks_ / all_ticks_); }

  inline void SoftmaxUpTo(int end) {
    Group& group = *pending_;
    for (; group.done < end; ++group.done) {
      const int i = group.done / 16, r = group.done % 16 * 2;
      Fetch(group.row + r, group.first + i);
      factors_.TwoRows(*group.active, group.first + i, group.row, r, group.s + i * 1024,
                       group.dp + i * 1024);
    }
  }

  // A piece of the next queries, and a line of each of two rows of dq, which are due in two rounds.
  inline void Fetch(int row, int line) {
    for (const char* end = std::min(fetch_ + fetch_bytes_, fetch_end_); fetch_ < end; fetch_ += 64)
      _mm_prefetch(fetch_, _MM_HINT_T1);
    for (int y = row; y < row + 2 && 16 * line < task_.head_dim; ++y) {
      if (task_.dq_rows[y]) _mm_prefetch(task_.dq_rows[y] + 16 * line, _MM_HINT_T1);
    }
  }

  const AmxShape& shape_;
  const AmxBackwardTask& task_;
  const GradientFactors& factors_;
  const int steps_;  // of 32 numbers of a row
  ActiveBlocks active_[3];
  Group groups_[2];
  Group* pending_ = nullptr;
  int turn_ = 0, ticks_ = 0, all_ticks_ = 0;
  float* const sums_;
  const char *fetch_, *fetch_end_;
  ptrdiff_t fetch_bytes_;
};

}  // namespace

void AmxBackward(const AmxShape& shape, const AmxBackwardTask& task,
                 const AmxScratch& scratch) noexcept {
  const TileRegisters registers;
  const BlockMask block_mask(task.mask, shape.keys);
  const ptrdiff_t area = static_cast<ptrdiff_t>(shape.rows) * shape.keys;
  float shift_R[kMaxRows], scaled_delta_R[kMaxRows];
  for (int r = 0; r < shape.rows; ++r) {
    // A query that saw nothing has p = 2^-inf.
    shift_R[r] = task.lse_R[r] == kMinusInfinity ? -kMinusInfinity : task.lse_R[r] * kLog2E;
    scaled_delta_R[r] = task.delta_R[r] * task.scale;
  }
  const GradientFactors factors{block_mask,     shape,     task.scale,       shift_R,
                                scaled_delta_R, scratch.p, scratch.p + area, scratch.p + 2 * area};
  QueryBlocks seen_by[kMaxBlocks];
  QueryRounds(shape, task, factors, scratch.s).Run(seen_by);
  for (int keys = 0; keys < shape.keys / 32; ++keys) {
    if (seen_by[keys].count == 0) continue;
    const bool started = task.keys_started[keys];
    AddKeyGradient(factors, keys, seen_by[keys], task.dout_KR_rows, factors.p_RN_pairs, started,
                   task.dv_KN);
    AddKeyGradient(factors, keys, seen_by[keys], task.q_KR_rows, factors.ds_RN_pairs, started,
                   task.dk_KN);
    task.keys_started[keys] = true;
  }
}

}  // namespace lwm::kernels
LWM_AMX_END

#endif
