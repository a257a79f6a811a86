#include "lwm/kernels/attention/amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include "lwm/kernels/attention/bf16-inl.h"

LWM_BF16_BEGIN
namespace lwm::kernels {
namespace {

// 16 rows of 16 32-bit numbers, transposed in registers: 64 shuffles in four rounds, of numbers, of
// pairs, then twice of 128-bit lanes. Pairs of bf16 transpose as one 32-bit number.
inline void Transpose16(__m512i (&x)[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    x[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    x[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    x[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    x[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // x[4 * i + c] now holds, in its four lanes l, column 4 * l + c of rows 4 * i to 4 * i + 3.
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xdd);
    t[12 + c] = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xdd);
  }
  for (int c = 0; c < 4; ++c) {
    x[c] = _mm512_shuffle_i32x4(t[c], t[4 + c], 0x88);
    x[8 + c] = _mm512_shuffle_i32x4(t[c], t[4 + c], 0xdd);
    x[4 + c] = _mm512_shuffle_i32x4(t[8 + c], t[12 + c], 0x88);
    x[12 + c] = _mm512_shuffle_i32x4(t[8 + c], t[12 + c], 0xdd);
  }
}

// 16 numbers of two rows, alternating.
inline __m512i Interleave(__m256i even, __m256i odd) {
  const __m512i low = _mm512_cvtepu16_epi32(even), high = _mm512_cvtepu16_epi32(odd);
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Rows of head_dim numbers as padded ones: zeros beyond head_dim and where a row is missing. Loads
// are masked, so that nothing beyond a row is read. Notes whether all numbers read are finite,
// while they are in registers anyway: a number whose exponent is all ones is not.
class PaddedRows {
 public:
  PaddedRows(const void* const* rows, int count, int head_dim)
      : rows_(rows), count_(count), head_dim_(head_dim) {}

  // Rows lie apart from each other, where the hardware prefetcher does not find them.
  inline void Fetch(int row) const {
    if (row >= count_ || !rows_[row]) return;
    for (int c = 0; c < head_dim_; c += 32) _mm_prefetch(At(row, c), _MM_HINT_T0);
  }

  // Columns [c, c + 32) and [c, c + 16).
  inline __m512i Load32(int row, int c) {
    const int left = rows_[row] ? std::clamp(head_dim_ - c, 0, 32) : 0;
    const auto mask = static_cast<__mmask32>((uint64_t{1} << left) - 1);
    return Noted(_mm512_maskz_loadu_epi16(mask, left ? At(row, c) : nullptr));
  }
  inline __m256i Load16(int row, int c) {
    const int left = rows_[row] ? std::clamp(head_dim_ - c, 0, 16) : 0;
    const auto mask = static_cast<__mmask16>((1u << left) - 1);
    const __m256i x = _mm256_maskz_loadu_epi16(mask, left ? At(row, c) : nullptr);
    Noted(_mm512_castsi256_si512(x), 0xffff);
    return x;
  }
  bool finite() const { return special_ == 0; }

 private:
  const uint16_t* At(int row, int c) const { return static_cast<const uint16_t*>(rows_[row]) + c; }
  inline __m512i Noted(__m512i x, __mmask32 where = 0xffffffffu) {
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    special_ |= _mm512_mask_cmpeq_epi16_mask(where, _mm512_and_si512(x, exponent), exponent);
    return x;
  }

  const void* const* rows_;
  int count_, head_dim_;
  __mmask32 special_ = 0;
};

// rows of x_CR; at(r, c) is where 16 columns of row r of x_RC lie, from column c on.
template <class At>
inline void TransposeToRows(int rows, int cols, uint16_t* blocks, const At& at) {
  for (int c = 0; c < cols; c += 16) {
    for (int r = 0; r < rows; r += 32, blocks += kRegister) {
      __m512i x[16];
      for (int i = 0; i < 16; ++i) {
        x[i] =
            Interleave(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at(r + 2 * i, c))),
                       _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at(r + 2 * i + 1, c))));
      }
      Transpose16(x);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(blocks + i * 32, x[i]);
    }
  }
}

}  // namespace

bool PackTransposedPairs(const void* const* rows_N, int rows, int head_dim,
                         uint16_t* pairs) noexcept {
  PaddedRows padded(rows_N, rows, head_dim);
  for (int n = 0; n < rows; n += 16) {
    for (int i = 16; i < 32; ++i) padded.Fetch(n + i);
    // A pair of k^T is two neighbouring numbers of a row of k: the transpose moves them as one.
    for (int c = 0; c < head_dim; c += 32, pairs += kRegister) {
      __m512i x[16];
      for (int i = 0; i < 16; ++i) x[i] = padded.Load32(n + i, c);
      Transpose16(x);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(pairs + i * 32, x[i]);
    }
  }
  return padded.finite();
}

bool PackPairs(const void* const* rows_C, int rows, int head_dim, uint16_t* pairs) noexcept {
  PaddedRows padded(rows_C, rows, head_dim);
  const int dim = (head_dim + 31) / 32 * 32;
  for (int c = 0; c < rows; c += 32) {
    for (int pair = 0; pair < 16; ++pair) {
      const int row = c + pair;
      padded.Fetch(row + 32);
      padded.Fetch(row + 48);
      for (int n = 0; n < dim; n += 16) {
        const __m512i x = Interleave(padded.Load16(row, n), padded.Load16(row + 16, n));
        _mm512_store_si512(pairs + (n / 16 * (rows / 32) + c / 32) * kRegister + pair * 32, x);
      }
    }
  }
  return padded.finite();
}

bool AmxPackRows(const void* const* rows_R, int rows, int head_dim, uint16_t* blocks) noexcept {
  PaddedRows padded(rows_R, rows, head_dim);
  for (int r = 0; r < rows; r += 16) {
    for (int i = 16; i < 32; ++i) padded.Fetch(r + i);
    for (int c = 0; c < head_dim; c += 32, blocks += kRegister) {
      for (int i = 0; i < 16; ++i) _mm512_store_si512(blocks + i * 32, padded.Load32(r + i, c));
    }
  }
  return padded.finite();
}

void AmxPackTransposedRows(const uint16_t* x_RC, int rows, int cols, uint16_t* blocks) noexcept {
  TransposeToRows(rows, cols, blocks,
                  [=](int r, int c) { return x_RC + static_cast<ptrdiff_t>(r) * cols + c; });
}

void AmxTransposeRows(const uint16_t* x_RC_rows, int rows, int cols, uint16_t* x_CR_rows) noexcept {
  TransposeToRows(rows, cols, x_CR_rows, [=](int r, int c) {
    const ptrdiff_t block = ptrdiff_t{r / 16} * (cols / 32) + c / 32;
    return x_RC_rows + block * kRegister + r % 16 * 32 + c % 32;
  });
}

void AmxTransposeBlocks(const float* blocks_KN, const bool* keys_started, int keys, int dim,
                        float* x_NK) noexcept {
  for (int k = 0; k < dim; k += 32) {
    for (int n = 0; n < keys; n += 32, blocks_KN += 1024) {
      for (int quarter = 0; quarter < 4; ++quarter) {
        const int k16 = quarter / 2 * 16, n16 = quarter % 2 * 16;
        __m512i x[16] = {};
        if (keys_started[n / 32]) {
          for (int i = 0; i < 16; ++i) x[i] = _mm512_load_si512(blocks_KN + (k16 + i) * 32 + n16);
          Transpose16(x);
        }
        float* to = x_NK + static_cast<ptrdiff_t>(n + n16) * dim + k + k16;
        for (int i = 0; i < 16; ++i, to += dim) _mm512_storeu_si512(to, x[i]);
      }
    }
  }
}

}  // namespace lwm::kernels
LWM_BF16_END

#endif
