#include "lwm/kernels/attention/bf16.h"

#if defined(__x86_64__) && defined(__linux__)

#include "lwm/kernels/attention/avx512-inl.h"

LWM_BF16_BEGIN
namespace lwm::kernels {
namespace {

// Scores of up to 128 keys at a time: the accumulator is loaded and stored once per group, and the
// scores (16 KB) and p (8 KB) of 32 queries stay in the first-level cache.
constexpr int kGroupBlocks = 4;  // of 32 keys
constexpr ptrdiff_t kGroupKeys = 32 * kGroupBlocks;
static_assert(32 * kGroupKeys <= kAvx512ForwardScores);

// 32 queries at a time: the scores of a group of keys, their softmax, their values. Everything but
// the packed keys stays in the first-level cache. Products and softmax use the same registers and
// units here, so they are not interleaved as they are with AMX.
class Strips {
 public:
  Strips(const Bf16TileShape& shape, const Bf16ForwardTask& task, const Bf16Scratch& scratch)
      : shape_(shape),
        task_(task),
        mask_(task.mask, shape.keys),
        s_(scratch.s),
        p_(scratch.p),
        factor_(task.scale * kLog2E) {}

  void Run() {
    for (row_ = 0; row_ < shape_.rows; row_ += 32) {
      const ActiveBlocks active = mask_.Active(row_);
      if (active.count == 0) continue;
      std::fill_n(sums_, 32 * 16, 0.0f);
      ForEachRun(active, kGroupBlocks, [&](int first, int count) {
        Scores(active.block[first], count);
        for (int i = 0; i < count; ++i) {
          if (active.masked[first + i]) Hide(active.block[first + i], i);
        }
        for (int r = 0; r < 32; ++r) SoftmaxRow(r, count);
        AddValues(active.block[first], count);
      });
      for (int r = 0; r < 32; r += 16) {
        float* const sum = task_.sum_R + row_ + r;
        _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), RowSums(sums_ + 16 * r)));
      }
    }
  }

 private:
  void Scores(int block, int count) const {
    const ptrdiff_t dim = shape_.dim, columns = 16 * dim;  // of k^T, 16 of them
    MultiplyBlock({task_.q_RK + row_ * dim, dim, 2}, {task_.k_pairs + 2 * block * columns, columns},
                  shape_.dim / 2, 2 * count, {s_, kGroupKeys}, false);
  }

  void AddValues(int block, int count) const {
    const ptrdiff_t dim = shape_.dim;
    MultiplyBlock({p_, kGroupKeys, 2},
                  {task_.v_pairs + block * kRegister, shape_.keys / 32 * kRegister}, 16 * count,
                  shape_.dim / 16, {task_.acc_RK + row_ * dim, dim}, true);
  }

  // Once per masked block of scores: the softmax then needs no mask.
  void Hide(int block, int at) const {
    const __m512 hidden = _mm512_set1_ps(kMinusInfinity);
    for (int r = 0; r < 32; ++r) {
      for (int n = 0; n < 32; n += 16) {
        const __mmask16 seen = mask_.Seen(row_ + r, 32 * block + n);
        _mm512_mask_store_ps(s_ + r * kGroupKeys + 32 * at + n, _knot_mask16(seen), hidden);
      }
    }
  }

  void SoftmaxRow(int r, int count) {
    const float* const s = s_ + r * kGroupKeys;
    uint16_t* const p = p_ + r * kGroupKeys;
    __m512 largest = _mm512_max_ps(_mm512_load_ps(s), _mm512_load_ps(s + 16));
    for (int n = 32; n < 32 * count; n += 32) {
      largest =
          _mm512_max_ps(largest, _mm512_max_ps(_mm512_load_ps(s + n), _mm512_load_ps(s + n + 16)));
    }
    const __m512 factor = _mm512_set1_ps(factor_);
    __m512 shift = _mm512_set1_ps(task_.max_R[row_ + r] * kLog2E);
    // Also true where no key was seen before: the shift is -inf. A NaN that the maximum loses is
    // still in the scores and shows in p.
    const __m512 limit = _mm512_set1_ps(kMaxSlack * kLog2E);
    if (_mm512_cmp_ps_mask(_mm512_fmsub_ps(largest, factor, shift), limit, _CMP_NLE_UQ)) {
      shift = _mm512_set1_ps(Raise(r, _mm512_reduce_max_ps(largest)));
    }
    __m512 sum = _mm512_load_ps(sums_ + 16 * r), more = _mm512_setzero_ps();
    for (int n = 0; n < 32 * count; n += 32) {
      const __m512 low = Exp2(_mm512_fmsub_ps(_mm512_load_ps(s + n), factor, shift));
      const __m512 high = Exp2(_mm512_fmsub_ps(_mm512_load_ps(s + n + 16), factor, shift));
      sum = _mm512_add_ps(sum, low);
      more = _mm512_add_ps(more, high);
      _mm512_store_si512(p + n, pairs_(low, high));
    }
    _mm512_store_ps(sums_ + 16 * r, _mm512_add_ps(sum, more));
  }

  // Some score of row r exceeds the limit: a new maximum, or NaN. Returns the shift to use. A row
  // that has seen nothing is shifted by 0: -inf - -inf would be NaN. Not inlined, being rare.
  __attribute__((noinline)) float Raise(int r, float largest) {
    const float row_max = largest * task_.scale;
    float& running = task_.max_R[row_ + r];
    if (!(row_max > running + kMaxSlack)) {
      return running == kMinusInfinity ? 0.0f : running * kLog2E;
    }
    if (running != kMinusInfinity) Decay(r, std::exp2((running - row_max) * kLog2E));
    running = row_max;
    return row_max * kLog2E;
  }

  // Multiplies the sums of row r so far by the factor. This group's p come after, with the new
  // maximum.
  void Decay(int r, float factor) {
    const __m512 decay = _mm512_set1_ps(factor);
    task_.sum_R[row_ + r] *= factor;
    _mm512_store_ps(sums_ + 16 * r, _mm512_mul_ps(_mm512_load_ps(sums_ + 16 * r), decay));
    float* const acc_K = task_.acc_RK + ptrdiff_t{row_ + r} * shape_.dim;
    for (int k = 0; k < shape_.dim; k += 16) {
      _mm512_store_ps(acc_K + k, _mm512_mul_ps(_mm512_load_ps(acc_K + k), decay));
    }
  }

  const Bf16TileShape& shape_;
  const Bf16ForwardTask& task_;
  const BlockMask mask_;
  float* const s_;     // [32][kGroupKeys]
  uint16_t* const p_;  // [32][kGroupKeys]
  const float factor_;
  const PairsOfHalves pairs_;
  int row_ = 0;
  alignas(64) float sums_[32 * 16];  // of each query, of every 16th p
};

}  // namespace

void Avx512Forward(const Bf16TileShape& shape, const Bf16ForwardTask& task,
                   const Bf16Scratch& scratch) noexcept {
  Strips(shape, task, scratch).Run();
}

}  // namespace lwm::kernels
LWM_BF16_END

#endif
