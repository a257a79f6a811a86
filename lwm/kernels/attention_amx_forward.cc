#include "lwm/kernels/attention_amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include "lwm/kernels/attention_amx-inl.h"

LWM_AMX_BEGIN
namespace lwm::kernels {
namespace {

// As Multiply, for a right factor that is not read again soon: it leaves the rest of the
// first-level cache in place.
inline void MultiplyStreamed(const uint16_t* a, ptrdiff_t a_stride_bytes, ptrdiff_t a_next,
                             const uint16_t* b, ptrdiff_t b_next) {
  _tile_stream_loadd(6, b, 64);
  _tile_loadd(4, a, a_stride_bytes);
  _tile_stream_loadd(7, b + b_next, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(5, a + a_next, a_stride_bytes);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// The sums go to `done`; the product begins new ones, from `from` or from zero. A sum is multiplied
// into again as soon as it is stored, so that the others' stores do not hold the products up.
template <bool kFromZero>
inline void StoreSumsAndMultiply(float* done, const float* from, ptrdiff_t row_floats,
                                 const uint16_t* a, ptrdiff_t a_stride_bytes, ptrdiff_t a_next,
                                 const uint16_t* b, ptrdiff_t b_next) {
  const ptrdiff_t stride = row_floats * 4, lower = 16 * row_floats;
  _tile_stream_loadd(6, b, 64);
  _tile_loadd(4, a, a_stride_bytes);
  _tile_stream_loadd(7, b + b_next, 64);
  _tile_loadd(5, a + a_next, a_stride_bytes);
#define LWM_NEXT_SUM(sum, at, left, right) \
  _tile_stored(sum, done + (at), stride);  \
  if constexpr (kFromZero) {               \
    _tile_zero(sum);                       \
  } else {                                 \
    _tile_loadd(sum, from + (at), stride); \
  }                                        \
  _tile_dpbf16ps(sum, left, right)
  LWM_NEXT_SUM(0, 0, 4, 6);
  LWM_NEXT_SUM(1, 16, 4, 7);
  LWM_NEXT_SUM(2, lower, 5, 6);
  LWM_NEXT_SUM(3, lower + 16, 5, 7);
#undef LWM_NEXT_SUM
}

// Scores may exceed the running maximum by this much, in powers of e, before the sums so far are
// brought to a new one: p is then at most 148, and just as exact.
constexpr float kMaxSlack = 5.0f;

// Some of the blocks of keys that 32 queries see, on their way: scores, then row by row their
// softmax, then their values.
constexpr int kGroupBlocks = 4;
constexpr ptrdiff_t kGroupNumbers = kGroupBlocks * 1024;
static_assert(2 * kGroupNumbers <= static_cast<ptrdiff_t>(kAmxForwardScores));
struct Group {
  int row = 0, count = 0;
  int block[kGroupBlocks];
  bool masked[kGroupBlocks];
  float* s;     // blocks of [32][32]
  uint16_t* p;  // likewise
  int rows_done = 0;
  bool decays = false;  // some of
  float decay[32];      // what the values so far are multiplied by before those of this group
};

// Hides what row r may not see, then gives its largest score.
inline float GroupRowMax(const BlockMask& mask, const Group& group, int r) {
  __m512 low = _mm512_set1_ps(kMinusInfinity), high = low;
  for (int i = 0; i < group.count; ++i) {
    float* at = group.s + i * 1024 + r * 32;
    __m512 a = _mm512_load_ps(at), b = _mm512_load_ps(at + 16);
    if (group.masked[i]) {
      const __m512 hidden = _mm512_set1_ps(kMinusInfinity);
      const int row = group.row + r, key = group.block[i] * 32;
      a = _mm512_mask_mov_ps(hidden, mask.Seen(row, key), a);
      b = _mm512_mask_mov_ps(hidden, mask.Seen(row, key + 16), b);
      _mm512_store_ps(at, a);
      _mm512_store_ps(at + 16, b);
    }
    low = _mm512_max_ps(low, a);
    high = _mm512_max_ps(high, b);
  }
  return _mm512_reduce_max_ps(_mm512_max_ps(low, high));
}

// p of row r; returns its sum.
inline float GroupRowExp(const Group& group, int r, float factor, float shift) {
  const __m512 c = _mm512_set1_ps(factor), b = _mm512_set1_ps(shift);
  __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0;
  for (int i = 0; i < group.count; ++i) {
    const float* at = group.s + i * 1024 + r * 32;
    const __m512 p0 = Exp2(_mm512_fmsub_ps(_mm512_load_ps(at), c, b));
    const __m512 p1 = Exp2(_mm512_fmsub_ps(_mm512_load_ps(at + 16), c, b));
    sum0 = _mm512_add_ps(sum0, p0);
    sum1 = _mm512_add_ps(sum1, p1);
    _mm512_store_si512(group.p + i * 1024 + r * 32, ToBf16(p0, p1));
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(sum0, sum1));
}

// Products and softmax, one beside the other: while the tile registers multiply for one group, the
// vector registers work on the group before it. Scores and p of two groups stay in the first-level
// cache.
//
//   step t:  scores of group t
//            values of group t - 2
//            softmax of group t - 1  (spread over the products)
class GroupSteps {
 public:
  GroupSteps(const AmxShape& shape, const AmxForwardTask& task, const BlockMask& mask,
             const AmxScratch& scratch)
      : shape_(shape),
        task_(task),
        mask_(mask),
        scratch_(scratch),
        steps_(shape.dim / 32),
        fetch_(static_cast<const char*>(task.next_keys)) {
    // The next keys come into the second-level cache in equal pieces, one with each row of a group.
    const ptrdiff_t groups = (shape.keys / 32 + kGroupBlocks - 1) / kGroupBlocks;
    const ptrdiff_t pieces = groups * shape.rows, bytes = ptrdiff_t{4} * shape.keys * shape.dim;
    fetch_bytes_ = fetch_ ? (bytes / pieces + 63) / 64 * 64 : 0;
    fetch_end_ = fetch_ + (fetch_ ? bytes : 0);
  }

  void Run() {
    for (int row = 0; row < shape_.rows; row += 32) {
      const ActiveBlocks active = mask_.Active(row);
      for (int first = 0; first < active.count; first += kGroupBlocks) Step(row, active, first);
    }
    for (int i = 0; i < 2; ++i) Step(0, ActiveBlocks(), 0);
  }

 private:
  // The blocks from `first` on, as many as a group holds, begin their way.
  void Step(int row, const ActiveBlocks& active, int first) {
    Group& now = groups_[step_ % 3];
    pending_ = &groups_[(step_ + 2) % 3];
    Group& finished = groups_[(step_ + 1) % 3];
    now.row = row;
    now.count = std::min(active.count - first, kGroupBlocks);
    std::copy_n(active.block + first, now.count, now.block);
    std::copy_n(active.masked + first, now.count, now.masked);
    now.s = scratch_.s + step_ % 2 * kGroupNumbers;
    now.p = scratch_.p + step_ % 2 * kGroupNumbers;
    now.rows_done = now.count > 0 ? 0 : 32;
    now.decays = false;
    ticks_ = 0;
    all_ticks_ = steps_ * (now.count + finished.count);
    Scores(now);
    if (finished.count > 0) AddValues(finished);
    if (pending_->count > 0) RowsUpTo(32);
    Fence();
    ++step_;
  }

  inline void Scores(const Group& group) {
    const uint16_t* q = task_.q_RK + ptrdiff_t{group.row} * shape_.dim;
    const ptrdiff_t stride = shape_.dim * 2, q_next = 16 * ptrdiff_t{shape_.dim};
    const ptrdiff_t k_next = steps_ * kRegister;
    float* s = group.s;
    for (int i = 0; i < group.count; ++i) {
      const uint16_t* k = task_.k_pairs + group.block[i] * 2 * k_next;
      if (i == 0) {
        ZeroSums();
        MultiplyStreamed(q, stride, q_next, k, k_next);
      } else {
        StoreSumsAndMultiply<true>(s, nullptr, 32, q, stride, q_next, k, k_next);
        s += 1024;
      }
      Tick();
      for (int step = 1; step < steps_; ++step) {
        MultiplyStreamed(q + 32 * step, stride, q_next, k + step * kRegister, k_next);
        Tick();
      }
    }
    if (group.count > 0) StoreSums(s, 32);
  }

  // acc [32, dim] = decay acc + p v.
  inline void AddValues(const Group& group) {
    float* acc = task_.acc_RK + ptrdiff_t{group.row} * shape_.dim;
    if (group.decays) Decay(group, acc);
    const ptrdiff_t v_next = shape_.keys / 32 * kRegister;
    for (int k = 0; k < shape_.dim; k += 32, acc += 32) {
      const uint16_t* v = task_.v_pairs + k / 16 * v_next;
      const uint16_t* first = v + group.block[0] * kRegister;
      if (k == 0) {
        LoadSums(acc, shape_.dim);
        MultiplyStreamed(group.p, 64, kRegister, first, v_next);
      } else {
        StoreSumsAndMultiply<false>(acc - 32, acc, shape_.dim, group.p, 64, kRegister, first,
                                    v_next);
      }
      Tick();
      for (int i = 1; i < group.count; ++i) {
        MultiplyStreamed(group.p + i * 1024, 64, kRegister, v + group.block[i] * kRegister, v_next);
        Tick();
      }
    }
    StoreSums(acc - 32, shape_.dim);
  }

  void Decay(const Group& group, float* acc_RK) const {
    for (int r = 0; r < 32; ++r, acc_RK += shape_.dim) {
      if (group.decay[r] == 1.0f) continue;
      const __m512 decay = _mm512_set1_ps(group.decay[r]);
      for (int k = 0; k < shape_.dim; k += 16) {
        _mm512_store_ps(acc_RK + k, _mm512_mul_ps(decay, _mm512_load_ps(acc_RK + k)));
      }
    }
    Fence();
  }

  // One product is under way: time for a share of the softmax.
  inline void Tick() {
    ++ticks_;
    if (pending_->count > 0) RowsUpTo(32 * ticks_ / all_ticks_);
  }
  inline void RowsUpTo(int end) {
    for (; pending_->rows_done < end; ++pending_->rows_done)
      Softmax(*pending_, pending_->rows_done);
  }

  inline void Softmax(Group& group, int r) {
    const int row = group.row + r;
    for (const char* end = std::min(fetch_ + fetch_bytes_, fetch_end_); fetch_ < end; fetch_ += 64)
      _mm_prefetch(fetch_, _MM_HINT_T1);
    const float row_max = GroupRowMax(mask_, group, r) * task_.scale;
    float running = task_.max_R[row];
    group.decay[r] = 1.0f;
    if (row_max > running + kMaxSlack) {
      if (running != kMinusInfinity) {  // else the first keys: nothing decays
        group.decay[r] = std::exp2((running - row_max) * kLog2E);
        group.decays = true;
        task_.sum_R[row] *= group.decay[r];
      }
      task_.max_R[row] = running = row_max;
    }
    const float shift = running == kMinusInfinity ? 0.0f : running * kLog2E;
    task_.sum_R[row] += GroupRowExp(group, r, task_.scale * kLog2E, shift);
  }

  const AmxShape& shape_;
  const AmxForwardTask& task_;
  const BlockMask& mask_;
  const AmxScratch& scratch_;
  const int steps_;  // of 32 numbers of a row
  Group groups_[3];
  Group* pending_ = nullptr;
  int step_ = 0, ticks_ = 0, all_ticks_ = 0;
  const char *fetch_, *fetch_end_;
  ptrdiff_t fetch_bytes_;
};

}  // namespace

void AmxForward(const AmxShape& shape, const AmxForwardTask& task,
                const AmxScratch& scratch) noexcept {
  const TileRegisters registers;
  const BlockMask block_mask(task.mask, shape.keys);
  GroupSteps(shape, task, block_mask, scratch).Run();
}

}  // namespace lwm::kernels
LWM_AMX_END

#endif
