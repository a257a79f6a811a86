#include "lwm/kernels/attention_amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include "lwm/kernels/attention_amx-inl.h"

LWM_AMX_BEGIN
namespace lwm::kernels {
namespace {

// 16 rows of 16 32-bit numbers, transposed in registers.
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
inline __m512i Interleave(const uint16_t* even, const uint16_t* odd) {
  const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)even));
  const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)odd));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

}  // namespace

void AmxPackTransposedPairs(const uint16_t* x_NC, int rows, int cols, uint16_t* pairs) noexcept {
  for (int n = 0; n < rows; n += 16) {
    for (int c = 0; c < cols; c += 32, pairs += kRegister) {
      __m512i x[16];
      for (int i = 0; i < 16; ++i) {
        x[i] = _mm512_loadu_si512(x_NC + static_cast<ptrdiff_t>(n + i) * cols + c);
      }
      Transpose16(x);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(pairs + i * 32, x[i]);
    }
  }
}

void AmxPackPairs(const uint16_t* x_CN, int rows, int cols, PairOrder order,
                  uint16_t* pairs) noexcept {
  const int step = order == PairOrder::kNeighbours ? 2 : 1;
  const ptrdiff_t partner = order == PairOrder::kNeighbours ? cols : ptrdiff_t{16} * cols;
  for (int n = 0; n < cols; n += 16) {
    for (int c = 0; c < rows; c += 32) {
      for (int pair = 0; pair < 16; ++pair, pairs += 32) {
        const uint16_t* x = x_CN + static_cast<ptrdiff_t>(c + pair * step) * cols + n;
        _mm512_store_si512(pairs, Interleave(x, x + partner));
      }
    }
  }
}

void AmxPackTransposedRows(const uint16_t* x_RC, int rows, int cols, uint16_t* blocks) noexcept {
  for (int c = 0; c < cols; c += 16) {
    for (int r = 0; r < rows; r += 32, blocks += kRegister) {
      __m512i x[16];
      for (int i = 0; i < 16; ++i) {
        const uint16_t* at = x_RC + static_cast<ptrdiff_t>(r + 2 * i) * cols + c;
        x[i] = Interleave(at, at + cols);
      }
      Transpose16(x);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(blocks + i * 32, x[i]);
    }
  }
}

void AmxTransposeBlocks(const float* blocks_KN, int keys, int dim, float* x_NK) noexcept {
  for (int k = 0; k < dim; k += 32) {
    for (int n = 0; n < keys; n += 32, blocks_KN += 1024) {
      for (int quarter = 0; quarter < 4; ++quarter) {
        const int k16 = quarter / 2 * 16, n16 = quarter % 2 * 16;
        __m512i x[16];
        for (int i = 0; i < 16; ++i) x[i] = _mm512_load_si512(blocks_KN + (k16 + i) * 32 + n16);
        Transpose16(x);
        for (int i = 0; i < 16; ++i) {
          float* to = x_NK + static_cast<ptrdiff_t>(n + n16 + i) * dim + k + k16;
          _mm512_storeu_ps(to, _mm512_castsi512_ps(x[i]));
        }
      }
    }
  }
}

}  // namespace lwm::kernels
LWM_AMX_END

#endif
