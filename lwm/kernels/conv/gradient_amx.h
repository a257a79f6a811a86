#pragma once

#include <cstdint>

namespace lwm::kernels {

// The gradient of a convolution's weights in bf16 on Intel AMX, without copying the image into
// columns (im2col): every tap of the kernel is a matrix product over the positions of the output,
//   dw[o][c] = sum over positions r of dy[r][o] * x[pixel under the tap at r][c].
// Only where AmxAvailable() (base/instruction_set.h).
constexpr int kAmxConvChannels = 32;  // of x in one call
constexpr int kAmxConvRows = 512;     // positions whose pixels are packed at once

struct AmxConvGradient {
  int rows = 0;  // positions, a multiple of 32
  int out = 0;   // channels of dy, a multiple of 16
  // AmxPackTransposedRows of every kAmxConvRows rows of dy_RO, and of the rest, one after another.
  const uint16_t* dy_blocks = nullptr;
  const uint16_t* const* x_R = nullptr;  // pixels under the tap; zeros beyond the border
};

struct AmxConvScratch {
  uint16_t* x_pairs;  // kAmxConvRows * kAmxConvChannels numbers, 64-byte aligned
  float* sums_OC;     // out rounded up to 32, times kAmxConvChannels, 64-byte aligned
};

// Gradient for channels [first, first + count) of x, count at most kAmxConvChannels. Writes
// dw_OC[o * row + c] as bf16 bits, rounded once to nearest even from sums in f32 (denormals to 0).
// NaN and infinity reach the sums that they enter.
void AmxConvGradientOfTap(const AmxConvGradient& gradient, int first, int count,
                          const AmxConvScratch& scratch, int64_t row, uint16_t* dw_OC) noexcept;

}  // namespace lwm::kernels
