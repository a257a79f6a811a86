#include "lwm/kernels/conv/gradient_amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include "lwm/kernels/attention/amx-inl.h"

LWM_AMX_BEGIN
namespace lwm::kernels {
namespace {

// Packs pixels as the right factor: pairs of positions 2 i and 2 i + 1 in each channel, registers
// [2][rows / 32]. 512 positions x 32 channels are 32 KB and fit L1, while dy passes by. The mask
// leaves out channels that the image does not have.
void PackPixels(const uint16_t* const* x_R, int rows, int first, __mmask32 mask,
                uint16_t* x_pairs) {
  alignas(64) uint16_t order[2][32];
  for (uint16_t i = 0; i < 32; ++i)
    for (uint16_t half = 0; half < 2; ++half)
      order[half][i] = static_cast<uint16_t>(half * 16 + i / 2 + i % 2 * 32);
  const __m512i low = _mm512_load_si512(order[0]), high = _mm512_load_si512(order[1]);
  const ptrdiff_t next = static_cast<ptrdiff_t>(rows) * 16;
  for (int r = 0; r < rows; r += 2, x_pairs += 32) {
    const __m512i even = _mm512_maskz_loadu_epi16(mask, x_R[r] + first);
    const __m512i odd = _mm512_maskz_loadu_epi16(mask, x_R[r + 1] + first);
    _mm512_store_si512(x_pairs, _mm512_permutex2var_epi16(even, low, odd));
    _mm512_store_si512(x_pairs + next, _mm512_permutex2var_epi16(even, high, odd));
  }
}

// sums += dy^T x over positions [begin, begin + rows), or = where begin is 0.
void MultiplyRows(const AmxConvGradient& gradient, int begin, int rows,
                  const AmxConvScratch& scratch) {
  const ptrdiff_t next = static_cast<ptrdiff_t>(rows) * 16;
  for (int o = 0; o < gradient.out; o += 32) {
    const uint16_t* dy =
        gradient.dy_blocks + static_cast<ptrdiff_t>(begin) * gradient.out + o / 16 * next;
    float* sums = scratch.sums_OC + o * kAmxConvChannels;
    if (begin == 0) {
      ZeroSums();
    } else {
      LoadSums(sums, kAmxConvChannels);
    }
    // With an odd number of 16s the second half of the last 32 output channels is missing. The
    // first half is read in its place; those sums are not stored to dw.
    const ptrdiff_t second = o + 16 < gradient.out ? next : 0;
    for (int r = 0; r < rows; r += 32)
      Multiply(dy + r * 16, 64, second, scratch.x_pairs + r * 16, next);
    StoreSums(sums, kAmxConvChannels);
  }
}

}  // namespace

void AmxConvGradientOfTap(const AmxConvGradient& gradient, int first, int count,
                          const AmxConvScratch& scratch, int64_t row, uint16_t* dw_OC) noexcept {
  const auto mask = static_cast<__mmask32>((uint64_t{1} << count) - 1);
  {
    const TileRegisters registers;
    // Sums wait in memory between chunks of positions, in f32.
    for (int begin = 0; begin < gradient.rows; begin += kAmxConvRows) {
      const int rows = std::min(kAmxConvRows, gradient.rows - begin);
      PackPixels(gradient.x_R + begin, rows, first, mask, scratch.x_pairs);
      Fence();
      MultiplyRows(gradient, begin, rows, scratch);
    }
    Fence();
  }
  for (int o = 0; o < gradient.out; ++o) {
    const float* sums = scratch.sums_OC + o * kAmxConvChannels;
    const __m512i bits = ToBf16(_mm512_load_ps(sums), _mm512_load_ps(sums + 16));
    _mm512_mask_storeu_epi16(dw_OC + o * row, mask, bits);
  }
}

}  // namespace lwm::kernels
LWM_AMX_END

#else  // no AMX on this kind of machine

namespace lwm::kernels {
void AmxConvGradientOfTap(const AmxConvGradient&, int, int, const AmxConvScratch&, int64_t,
                          uint16_t*) noexcept {}
}  // namespace lwm::kernels

#endif
