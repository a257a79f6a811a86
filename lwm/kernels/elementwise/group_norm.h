#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

// The parts of a group norm followed by silu, for one image or a run of its pixels with channels
// last. With the moments of its group, a channel c becomes
//   v = (x - shift_C[c]) * slope_C[c] + offset_C[c],  y = silu(v) = v / (1 + exp(-v)).
//
//   x_PC, dy_PC       in   f32 or bf16 (as its bits) [pixels, channels], row stride = channels
//   y_PC, dx_PC       out  same type; exactly an input, or disjoint from all
//   *_C               f32 or f64 [channels]
//
// Domain: pixels >= 1, channels >= 1, any alignment; NaN stays in its channel. Arithmetic in f32
// within 32 pixels, sums of those in f64; bf16 results are rounded once, to nearest even. Cost:
// each pass reads its inputs from memory once. Threads: call on disjoint runs of pixels.

// mean_C = the mean of each channel, square_C = the sum of (x - mean)^2. Relative error of both
// below 1e-6 (of the mean: of the largest |x|), also where the mean is 1000 deviations.
void ChannelMoments(const float* x_PC, size_t pixels, size_t channels, double* mean_C,
                    double* square_C) noexcept;
void ChannelMoments(const uint16_t* x_PC, size_t pixels, size_t channels, double* mean_C,
                    double* square_C) noexcept;

struct ChannelAffine {
  const float *shift_C, *slope_C, *offset_C;
};

// y = silu(v). f32 error below 5e-7 * (|v| + |offset_C|).
void NormSilu(const float* x_PC, size_t pixels, size_t channels, const ChannelAffine& affine,
              float* y_PC) noexcept;
void NormSilu(const uint16_t* x_PC, size_t pixels, size_t channels, const ChannelAffine& affine,
              uint16_t* y_PC) noexcept;

// With dv = dy * silu'(v), over the pixels: sum_C = sum of dv, dot_C = sum of dv * (x - shift_C).
void NormSiluSums(const float* dy_PC, const float* x_PC, size_t pixels, size_t channels,
                  const ChannelAffine& affine, double* sum_C, double* dot_C) noexcept;
void NormSiluSums(const uint16_t* dy_PC, const uint16_t* x_PC, size_t pixels, size_t channels,
                  const ChannelAffine& affine, double* sum_C, double* dot_C) noexcept;

// Gradient through the group's mean and variance.
struct ChannelCorrection {
  const float *level_C, *pull_C;
};

// dx = dv * slope_C - level_C - (x - shift_C) * pull_C.
void NormSiluBackward(const float* dy_PC, const float* x_PC, size_t pixels, size_t channels,
                      const ChannelAffine& affine, const ChannelCorrection& correction,
                      float* dx_PC) noexcept;
void NormSiluBackward(const uint16_t* dy_PC, const uint16_t* x_PC, size_t pixels, size_t channels,
                      const ChannelAffine& affine, const ChannelCorrection& correction,
                      uint16_t* dx_PC) noexcept;

}  // namespace lwm::kernels
