#include "lwm/kernels/attention/amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include "lwm/kernels/attention/amx-inl.h"

LWM_AMX_BEGIN
namespace lwm::kernels {
namespace {

// Numbers of a block of 32 queries x 32 keys.
constexpr ptrdiff_t kBlock = 1024;

// Up to four of the blocks of 32 keys that 32 queries see. Their values are added at once: the
// accumulator [32, dim] then passes through the tile registers once per 128 keys, not once per 32.
constexpr int kGroupBlocks = 4;
static_assert(3 * kBlock <= kAmxForwardScores && 2 * kGroupBlocks * kBlock <= kAmxForwardScores);
struct Group {
  int row = 0, count = 0;
  const int* block;
  const bool* masked;
  uint16_t* p;                  // blocks of [32][32]
  bool decays = false;          // some decay is not 1
  alignas(64) float decay[32];  // factor of the values so far, before this group's are added
};
struct Block {
  Group* group = nullptr;  // nullptr: none
  int index = 0;           // in the group
  float* s = nullptr;      // [32][32]

  bool last() const { return group && index + 1 == group->count; }
  int key() const { return group->block[index] * 32; }
  uint16_t* p() const { return group->p + index * kBlock; }
};

// The running softmax of 32 queries. The maximum may lag behind the scores by kMaxSlack, so that in
// most blocks nothing has to be rescaled.
class Softmax {
 public:
  explicit Softmax(const Bf16ForwardTask& task) : task_(task) {}

  // Turns to the block's queries and hides the keys that they may not see.
  inline void Start(const Block& block, const BlockMask& mask) {
    block_ = &block;
    if (block.group->row != row_) Turn(block.group->row);
    if (block.group->masked[block.index]) Hide(mask);
  }

  // Adds the sums to the task's. Until then each query has 16 partial sums, one a lane: adding them
  // up once at the end costs less than once a block.
  void Finish() {
    if (row_ < 0) return;
    for (int r = 0; r < 32; r += 16) {
      float* const sum = task_.sum_R + row_ + r;
      _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), RowSums(sums_ + 16 * r)));
    }
  }

  // The rows of one block, one after the other, with their constants in registers.
  class Rows {
   public:
    // Each row prefetches one line of the next keys into the second-level cache.
    Rows(Softmax& softmax, const Block& block, const char* fetch)
        : softmax_(softmax),
          s_(block.s),
          p_(block.group ? block.p() : nullptr),
          fetch_(fetch),
          factor_((__m512)InRegister((__m512i)_mm512_set1_ps(softmax_.task_.scale * kLog2E))) {}
    bool done() const { return r_ == 32; }

    LWM_INLINE void Next() {
      const ptrdiff_t r = r_++;
      _mm_prefetch(fetch_ + 64 * r, _MM_HINT_T1);
      const float* const s = s_ + 32 * r;
      const __m512 limit = _mm512_set1_ps(kMaxSlack * kLog2E);
      __m512 shift = _mm512_set1_ps(softmax_.shift_[r]);
      __m512 low = _mm512_fmsub_ps(_mm512_load_ps(s), factor_, shift);
      __m512 high = _mm512_fmsub_ps(_mm512_load_ps(s + 16), factor_, shift);
      // "Not less or equal" is true for NaN too, which must not take the fast path.
      const __mmask16 low_exceeds = _mm512_cmp_ps_mask(low, limit, _CMP_NLE_UQ);
      const __mmask16 high_exceeds = _mm512_cmp_ps_mask(high, limit, _CMP_NLE_UQ);
      if (!_kortestz_mask16_u8(low_exceeds, high_exceeds)) [[unlikely]] {
        shift = _mm512_set1_ps(softmax_.Raise(static_cast<int>(r)));
        low = _mm512_fmsub_ps(_mm512_load_ps(s), factor_, shift);
        high = _mm512_fmsub_ps(_mm512_load_ps(s + 16), factor_, shift);
      }
      low = Exp2(low);
      high = Exp2(high);
      float* const sum = softmax_.sums_ + 16 * r;
      _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), _mm512_add_ps(low, high)));
      _mm512_store_si512(p_ + 32 * r, pairs_(low, high));
    }

   private:
    Softmax& softmax_;
    const float* s_;
    uint16_t* p_;
    const char* fetch_;
    __m512 factor_;
    PairsOfHalves pairs_;
    ptrdiff_t r_ = 0;
  };

 private:
  void Turn(int row) {
    Finish();
    row_ = row;
    for (int r = 0; r < 32; ++r) {
      shift_[r] = task_.max_R[row_ + r] * kLog2E;
      _mm512_store_ps(sums_ + 16 * r, _mm512_setzero_ps());
    }
  }
  void Hide(const BlockMask& mask) const {
    const __m512 hidden = _mm512_set1_ps(kMinusInfinity);
    float* s = block_->s;
    for (int r = 0; r < 32; ++r, s += 32) {
      for (int n = 0; n < 32; n += 16) {
        const __mmask16 seen = mask.Seen(row_ + r, block_->key() + n);
        _mm512_mask_store_ps(s + n, _knot_mask16(seen), hidden);
      }
    }
  }

  // Some score of row r exceeds the limit: a new maximum, or NaN. Returns the shift to use. A row
  // that has seen nothing keeps its maximum of -inf, but is shifted by 0: -inf - -inf would be NaN.
  __attribute__((noinline)) float Raise(int r) {
    const float* const s = block_->s + 32 * r;
    const __m512 largest = _mm512_max_ps(_mm512_load_ps(s), _mm512_load_ps(s + 16));
    const float row_max = _mm512_reduce_max_ps(largest) * task_.scale;
    float& running = task_.max_R[row_ + r];
    if (!(row_max > running + kMaxSlack)) return running == kMinusInfinity ? 0.0f : shift_[r];
    if (running != kMinusInfinity) Decay(r, std::exp2((running - row_max) * kLog2E));
    running = row_max;
    return shift_[r] = row_max * kLog2E;
  }

  // Multiplies all of row r so far by the factor: the sums, and the p of this group that were
  // computed with the old maximum. Values of earlier groups may still be on their way to the
  // accumulator, so their factor is noted and applied before this group's values are added.
  void Decay(int r, float factor) {
    Group& group = *block_->group;
    group.decay[r] *= factor;
    group.decays = true;
    task_.sum_R[row_ + r] *= factor;
    const __m512 decay = _mm512_set1_ps(factor);
    float* const sum = sums_ + 16 * r;
    _mm512_store_ps(sum, _mm512_mul_ps(_mm512_load_ps(sum), decay));
    uint16_t* p = group.p + 32 * r;
    for (int i = 0; i < block_->index; ++i, p += kBlock) {
      const __m512i pairs = _mm512_load_si512(p);
      const __m512 low = (__m512)_mm512_slli_epi32(pairs, 16);
      const __m512 high = (__m512)_mm512_slli_epi32(_mm512_srli_epi32(pairs, 16), 16);
      const PairsOfHalves pairs_of;
      _mm512_store_si512(p, pairs_of(_mm512_mul_ps(low, decay), _mm512_mul_ps(high, decay)));
    }
  }

  const Bf16ForwardTask& task_;
  const Block* block_ = nullptr;
  int row_ = -1;
  // Of each query: its maximum in powers of 2, -inf before the first key; sums of every 16th p.
  alignas(64) float shift_[32], sums_[32 * 16];
};

// Products and softmax, interleaved: while the tile registers multiply, the vector registers work
// on the block before. The core looks ahead over a few tile operations only, so rows of softmax
// stand between them in the code. Scores, p and the values so far stay in the first-level cache.
//
//   step t:  scores of block t
//            a share of the values of the last group whose p are complete
//            softmax of block t - 1  (its rows spread over these products)
//
// A step thus only reads results of steps before it. Two empty steps at the end finish the softmax
// of the last block and the values of the last group.
class BlockSteps {
 public:
  BlockSteps(const Bf16TileShape& shape, const Bf16ForwardTask& task, const BlockMask& mask,
             const Bf16Scratch& scratch)
      : shape_(shape),
        task_(task),
        mask_(mask),
        scratch_(scratch),
        chunks_(shape.dim / 32),
        fetch_(static_cast<const char*>(task.next_keys ? task.next_keys : task.k_pairs)),
        fetch_end_(fetch_ + ptrdiff_t{4} * shape.keys * shape.dim),
        softmax_(task),
        sums_{scratch.s + 2 * kBlock, 32} {}

  void Run() {
    for (int row = 0; row < shape_.rows; row += 32) active_[row / 32] = mask_.Active(row);
    for (int row = 0; row < shape_.rows; row += 32) {
      const ActiveBlocks& active = active_[row / 32];
      for (int first = 0; first < active.count; first += kGroupBlocks) {
        Group& group = NextGroup(row, active, first);
        for (int i = 0; i < group.count; ++i) Step(&group, i);
      }
    }
    for (int i = 0; i < 2; ++i) Step(nullptr, 0);
    FlushSums();
    softmax_.Finish();
  }

 private:
  using Rows = Softmax::Rows;

  // Where sums of [32, 32] lie in memory.
  struct Sums {
    float* at;
    ptrdiff_t row_floats;
  };

  // Three groups can be in use at once: this one, the one before, whose last block is in its
  // softmax, and the one before that, whose values are being added. Two buffers of p are enough:
  // the values of a group are added before the softmax of the group after the next writes to its
  // buffer.
  Group& NextGroup(int row, const ActiveBlocks& active, int first) {
    Group& group = groups_[group_ % 3];
    group.row = row;
    group.count = std::min(active.count - first, kGroupBlocks);
    group.block = active.block + first;
    group.masked = active.masked + first;
    group.p = scratch_.p + group_++ % 2 * kGroupBlocks * kBlock;
    group.decays = false;
    std::fill_n(group.decay, 32, 1.0f);
    return group;
  }

  void Step(Group* group, int index) {
    const Block& pending = blocks_[(step_ + 1) % 2];
    Block& now = blocks_[step_ % 2];
    now.group = group;
    now.index = index;
    now.s = scratch_.s + step_++ % 2 * kBlock;
    int last_chunk = chunk_, products = now.group ? chunks_ : 0;
    if (share_ < shares_) {
      last_chunk = chunks_ * ++share_ / shares_;
      products += (last_chunk - chunk_) * values_->count;
    }
    // The fewer products a step has, the more of the 32 rows of softmax go with each. With more
    // than 32 products all rows follow them.
    if (!pending.group || products > 32) {
      Products<0>(pending, now, last_chunk);
    } else if (products > 16) {
      Products<1>(pending, now, last_chunk);
    } else if (products > 8) {
      Products<2>(pending, now, last_chunk);
    } else if (products > 4) {
      Products<4>(pending, now, last_chunk);
    } else {
      Products<8>(pending, now, last_chunk);
    }
    // No values followed the scores: store them, the next step's softmax reads them.
    if (sums_.at == now.s) FlushSums();
    if (pending.last()) StartValues(*pending.group, now.group ? now.group->count : 1);
  }

  // Adds the group's values in this many shares, one a step, so that each of the next group's steps
  // has about the same number of products for its softmax.
  void StartValues(Group& group, int shares) {
    values_ = &group;
    chunk_ = share_ = 0;
    shares_ = shares;
    if (group.decays) Decay(group);
  }

  // The products of one step, each with kRows rows of softmax.
  template <int kRows>
  void Products(const Block& pending, const Block& now, int last_chunk) {
    if (pending.group) softmax_.Start(pending, mask_);
    Rows rows(softmax_, pending, NextLines());
    // Loops of constant length are unrolled: head dim 128 with whole groups, the common case.
    if (kRows == 4 && chunks_ == 4 && now.group && last_chunk == chunk_ + 1 &&
        values_->count == 4) {
      Scores<kRows>(now, 4, rows);
      AddValues<kRows>(*values_, chunk_++, 4, rows);
    } else {
      if (now.group) Scores<kRows>(now, chunks_, rows);
      for (; chunk_ < last_chunk; ++chunk_) {
        AddValues<kRows>(*values_, chunk_, values_->count, rows);
      }
    }
    while (pending.group && !rows.done()) rows.Next();
    Fence();
  }

  // The lines that this step prefetches. At the end the last ones are fetched again, so that no row
  // needs a test.
  const char* NextLines() {
    constexpr ptrdiff_t kBytes = 32 * 64;
    const char* lines = fetch_;
    if (task_.next_keys && fetch_end_ - fetch_ >= 2 * kBytes) fetch_ += kBytes;
    return lines;
  }

  template <int kRows>
  LWM_INLINE void Scores(const Block& now, int chunks, Rows& rows) {
    const ptrdiff_t dim = ptrdiff_t{32} * chunks, stride = dim * 2, q_next = dim * 16;
    const uint16_t* q = task_.q_RK + now.group->row * dim;
    const ptrdiff_t k_next = chunks * kRegister;
    const uint16_t* k = task_.k_pairs + now.key() / 16 * k_next;
    MultiplyAnew<kRows, true>(rows, {now.s, 32}, q, stride, q_next, k, k_next);
    for (int step = 1; step < chunks; ++step) {
      MultiplyOn<kRows>(rows, q + 32 * step, stride, q_next, k + step * kRegister, k_next);
    }
  }

  // acc [32, 32 of dim] += p v.
  template <int kRows>
  LWM_INLINE void AddValues(const Group& group, int chunk, int count, Rows& rows) {
    float* acc = task_.acc_RK + ptrdiff_t{group.row} * shape_.dim + 32 * chunk;
    const ptrdiff_t v_next = shape_.keys / 32 * kRegister;
    const uint16_t* v = task_.v_pairs + 2 * chunk * v_next;
    MultiplyAnew<kRows, false>(rows, {acc, shape_.dim}, group.p, 64, kRegister,
                               v + group.block[0] * kRegister, v_next);
    for (int i = 1; i < count; ++i) {
      MultiplyOn<kRows>(rows, group.p + i * kBlock, 64, kRegister, v + group.block[i] * kRegister,
                        v_next);
    }
  }

  // As Multiply, for a right factor that is not read again soon: TILELOADDT1 leaves the rest of the
  // first-level cache in place.
  template <int kRows>
  LWM_INLINE void MultiplyOn(Rows& rows, const uint16_t* a, ptrdiff_t a_stride_bytes,
                             ptrdiff_t a_next, const uint16_t* b, ptrdiff_t b_next) {
    _tile_stream_loadd(6, b, 64);
    _tile_loadd(4, a, a_stride_bytes);
    Quarter<kRows, 0>(rows);
    _tile_stream_loadd(7, b + b_next, 64);
    _tile_dpbf16ps(0, 4, 6);
    Quarter<kRows, 1>(rows);
    _tile_loadd(5, a + a_next, a_stride_bytes);
    _tile_dpbf16ps(1, 4, 7);
    Quarter<kRows, 2>(rows);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    Quarter<kRows, 3>(rows);
  }

  // Stores the sums so far where they belong and begins new ones, from zero or from memory. Each
  // sum is multiplied into again before the next one is stored: the first products then run while
  // the other sums are still being stored. Rows of softmax follow each product.
  template <int kRows, bool kFromZero>
  LWM_INLINE void MultiplyAnew(Rows& rows, const Sums& sums, const uint16_t* a,
                               ptrdiff_t a_stride_bytes, ptrdiff_t a_next, const uint16_t* b,
                               ptrdiff_t b_next) {
    const Sums done = sums_;
    sums_ = sums;
    const ptrdiff_t done_stride = done.row_floats * 4, done_lower = 16 * done.row_floats;
    const ptrdiff_t stride = sums.row_floats * 4, lower = 16 * sums.row_floats;
    _tile_stream_loadd(6, b, 64);
    _tile_loadd(4, a, a_stride_bytes);
    _tile_stream_loadd(7, b + b_next, 64);
    _tile_loadd(5, a + a_next, a_stride_bytes);
#define LWM_NEXT_SUM(sum, done_at, next_at, left, right) \
  _tile_stored(sum, done.at + (done_at), done_stride);   \
  if constexpr (kFromZero) {                             \
    _tile_zero(sum);                                     \
  } else {                                               \
    _tile_loadd(sum, sums.at + (next_at), stride);       \
  }                                                      \
  _tile_dpbf16ps(sum, left, right);                      \
  Quarter<kRows, sum>(rows)
    LWM_NEXT_SUM(0, 0, 0, 4, 6);
    LWM_NEXT_SUM(1, 16, 16, 4, 7);
    LWM_NEXT_SUM(2, done_lower, lower, 5, 6);
    LWM_NEXT_SUM(3, done_lower + 16, lower + 16, 5, 7);
#undef LWM_NEXT_SUM
  }

  template <int kRows, int kQuarter>
  LWM_INLINE void Quarter(Rows& rows) {
    constexpr int kCount = kRows * (kQuarter + 1) / 4 - kRows * kQuarter / 4;
    for (int i = 0; i < kCount; ++i) rows.Next();
  }

  // Afterwards the tile registers hold nothing that is needed: the next store goes to a block of
  // scratch that nobody reads.
  void FlushSums() {
    StoreSums(sums_.at, sums_.row_floats);
    sums_ = {scratch_.s + 2 * kBlock, 32};
    Fence();
  }

  // The accumulator is multiplied in memory, so sums of it in tile registers are stored first.
  void Decay(const Group& group) {
    FlushSums();
    float* acc_RK = task_.acc_RK + ptrdiff_t{group.row} * shape_.dim;
    for (int r = 0; r < 32; ++r, acc_RK += shape_.dim) {
      if (group.decay[r] == 1.0f) continue;
      const __m512 decay = _mm512_set1_ps(group.decay[r]);
      for (int k = 0; k < shape_.dim; k += 16) {
        _mm512_store_ps(acc_RK + k, _mm512_mul_ps(decay, _mm512_load_ps(acc_RK + k)));
      }
    }
    Fence();
  }

  const Bf16TileShape& shape_;
  const Bf16ForwardTask& task_;
  const BlockMask& mask_;
  const Bf16Scratch& scratch_;
  const int chunks_;  // of 32 numbers of a row
  const char *fetch_, *fetch_end_;
  Softmax softmax_;
  ActiveBlocks active_[kMaxRows / 32];
  Group groups_[3];
  int group_ = 0, step_ = 0;
  // This step's block and the one that waits for its softmax. Used by turns, not copied: a wide
  // load of bytes that narrow stores have just written would wait for all tile operations before
  // it.
  Block blocks_[2];
  Group* values_ = nullptr;  // being added: share_ of shares_ are done, the chunks before chunk_
  int chunk_ = 0, share_ = 0, shares_ = 0;
  Sums sums_;  // in the tile registers
};

}  // namespace

void AmxForward(const Bf16TileShape& shape, const Bf16ForwardTask& task,
                const Bf16Scratch& scratch) noexcept {
  const TileRegisters registers;
  const BlockMask block_mask(task.mask, shape.keys);
  BlockSteps(shape, task, block_mask, scratch).Run();
}

}  // namespace lwm::kernels
LWM_AMX_END

#endif
