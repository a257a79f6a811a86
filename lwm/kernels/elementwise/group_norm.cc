#include "lwm/kernels/elementwise/group_norm.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/elementwise/group_norm.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

// A block of pixels x channels (32 KB in f32) stays in the cache between the two passes over it,
// and is short enough for sums in f32; sums of blocks are in f64.
constexpr size_t kBlockPixels = 32, kBlockChannels = 256;

// Calls body(first pixel, pixels, first channel, channels) for every block, all pixels of some
// channels before the next channels.
template <class Body>
HWY_INLINE void ForEachBlock(size_t pixels, size_t channels, const Body& body) {
  for (size_t c = 0; c < channels; c += kBlockChannels)
    for (size_t p = 0; p < pixels; p += kBlockPixels)
      body(p, std::min(kBlockPixels, pixels - p), c, std::min(kBlockChannels, channels - c));
}

// body(d, p, c) over pixels x channels, channels inside.
template <class Body>
HWY_INLINE void ForEachPixelLanes(size_t pixels, size_t channels, const Body& body) {
  for (size_t p = 0; p < pixels; ++p)
    ForEachLanes(channels, [&](auto d, size_t c) HWY_ATTR { body(d, p, c); });
}

template <class D>
HWY_INLINE void AddTo(D d, float* sum, hn::Vec<D> value) {
  hn::StoreU(hn::Add(hn::LoadU(d, sum), value), d, sum);
}

// Mean and sum of squared deviations of one block.
struct BlockMoments {
  alignas(64) float mean_C[kBlockChannels], rest_C[kBlockChannels], square_C[kBlockChannels];
};

// Two passes: deviations from the block's own mean do not cancel, as x^2 - mean^2 would where the
// mean is large. They are from the mean rounded to f32; their sum rest_C gives the error of that
// mean.
template <class T>
HWY_INLINE void MeasureBlock(const T* x_PC, size_t stride, size_t pixels, size_t width,
                             BlockMoments& block) {
  float *mean_C = block.mean_C, *rest_C = block.rest_C, *square_C = block.square_C;
  std::fill_n(mean_C, width, 0.0f);
  std::fill_n(rest_C, width, 0.0f);
  std::fill_n(square_C, width, 0.0f);
  ForEachPixelLanes(pixels, width, [=](auto d, size_t p, size_t c) HWY_ATTR {
    AddTo(d, mean_C + c, LoadLanes(d, x_PC + p * stride + c));
  });
  const float inverse = 1.0f / static_cast<float>(pixels);
  for (size_t c = 0; c < width; ++c) mean_C[c] *= inverse;
  ForEachPixelLanes(pixels, width, [=](auto d, size_t p, size_t c) HWY_ATTR {
    const auto x = hn::Sub(LoadLanes(d, x_PC + p * stride + c), hn::LoadU(d, mean_C + c));
    AddTo(d, rest_C + c, x);
    AddTo(d, square_C + c, hn::Mul(x, x));
  });
}

// Joins the moments of `before` pixels with those of a block of `pixels` more (Chan, Golub and
// LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances").
HWY_INLINE void JoinBlock(const BlockMoments& block, size_t width, double before, double pixels,
                          double* mean_C, double* square_C) {
  const double share = pixels / (before + pixels), cross = before * share, inverse = 1 / pixels;
  for (size_t c = 0; c < width; ++c) {
    const double rest = block.rest_C[c] * inverse;
    const double apart = block.mean_C[c] + rest - mean_C[c];
    mean_C[c] += apart * share;
    square_C[c] += block.square_C[c] - rest * rest * pixels + apart * apart * cross;
  }
}

// Blocks join in order of the pixels, so the result depends on the shape only.
template <class T>
HWY_INLINE void Moments(const T* x_PC, size_t pixels, size_t channels, double* mean_C,
                        double* square_C) {
  std::fill_n(mean_C, channels, 0.0);
  std::fill_n(square_C, channels, 0.0);
  BlockMoments block;
  ForEachBlock(pixels, channels, [&](size_t p, size_t rows, size_t c, size_t width) HWY_ATTR {
    MeasureBlock(x_PC + p * channels + c, channels, rows, width, block);
    JoinBlock(block, width, static_cast<double>(p), static_cast<double>(rows), mean_C + c,
              square_C + c);
  });
}

template <class T>
HWY_INLINE void Forward(const T* x_PC, size_t pixels, size_t channels, const ChannelAffine& affine,
                        T* y_PC) {
  const float *shift_C = affine.shift_C, *slope_C = affine.slope_C, *offset_C = affine.offset_C;
  ForEachPixelLanes(pixels, channels, [=](auto d, size_t p, size_t c) HWY_ATTR {
    const auto x = hn::Sub(LoadLanes(d, x_PC + p * channels + c), hn::LoadU(d, shift_C + c));
    const auto v = hn::MulAdd(x, hn::LoadU(d, slope_C + c), hn::LoadU(d, offset_C + c));
    StoreLanes(hn::Mul(v, MakeGate(d, v).sigmoid), d, y_PC + p * channels + c);
  });
}

// dy * silu'(v) for x already shifted, with silu'(v) = s (1 + v (1 - s)) and s = sigmoid(v). 1 - s
// comes from MakeGate, where it does not cancel.
template <class D>
HWY_INLINE hn::Vec<D> SiluGradient(D d, hn::Vec<D> dy, hn::Vec<D> x, const float* slope,
                                   const float* offset) {
  const auto v = hn::MulAdd(x, hn::LoadU(d, slope), hn::LoadU(d, offset));
  const auto gate = MakeGate(d, v);
  return hn::Mul(dy, hn::Mul(gate.sigmoid, hn::MulAdd(v, gate.rest, hn::Set(d, 1.0f))));
}

// f32 within a block of 32 pixels, f64 over blocks: short f32 sums are fast and lose few digits.
template <class T>
HWY_INLINE void Sums(const T* dy_PC, const T* x_PC, size_t pixels, size_t channels,
                     const ChannelAffine& affine, double* sum_C, double* dot_C) {
  const float *shift_C = affine.shift_C, *slope_C = affine.slope_C, *offset_C = affine.offset_C;
  alignas(64) float sum_W[kBlockChannels], dot_W[kBlockChannels];
  std::fill_n(sum_C, channels, 0.0);
  std::fill_n(dot_C, channels, 0.0);
  ForEachBlock(pixels, channels, [&](size_t p0, size_t rows, size_t c0, size_t width) HWY_ATTR {
    std::fill_n(sum_W, width, 0.0f);
    std::fill_n(dot_W, width, 0.0f);
    const T *dy = dy_PC + p0 * channels + c0, *from = x_PC + p0 * channels + c0;
    ForEachPixelLanes(rows, width, [&](auto d, size_t p, size_t c) HWY_ATTR {
      const auto x = hn::Sub(LoadLanes(d, from + p * channels + c), hn::LoadU(d, shift_C + c0 + c));
      const auto dv = SiluGradient(d, LoadLanes(d, dy + p * channels + c), x, slope_C + c0 + c,
                                   offset_C + c0 + c);
      AddTo(d, sum_W + c, dv);
      AddTo(d, dot_W + c, hn::Mul(dv, x));
    });
    for (size_t c = 0; c < width; ++c) {
      sum_C[c0 + c] += sum_W[c];
      dot_C[c0 + c] += dot_W[c];
    }
  });
}

// v is computed again from x, so that the forward pass keeps only x.
template <class T>
HWY_INLINE void Backward(const T* dy_PC, const T* x_PC, size_t pixels, size_t channels,
                         const ChannelAffine& affine, const ChannelCorrection& correction,
                         T* dx_PC) {
  const float *shift_C = affine.shift_C, *slope_C = affine.slope_C, *offset_C = affine.offset_C;
  const float *level_C = correction.level_C, *pull_C = correction.pull_C;
  ForEachPixelLanes(pixels, channels, [=](auto d, size_t p, size_t c) HWY_ATTR {
    const size_t at = p * channels + c;
    const auto x = hn::Sub(LoadLanes(d, x_PC + at), hn::LoadU(d, shift_C + c));
    const auto dv = SiluGradient(d, LoadLanes(d, dy_PC + at), x, slope_C + c, offset_C + c);
    const auto direct = hn::MulSub(dv, hn::LoadU(d, slope_C + c), hn::LoadU(d, level_C + c));
    StoreLanes(hn::NegMulAdd(x, hn::LoadU(d, pull_C + c), direct), d, dx_PC + at);
  });
}

void MomentsF32(const float* x_PC, size_t pixels, size_t channels, double* mean_C,
                double* square_C) {
  Moments(x_PC, pixels, channels, mean_C, square_C);
}
void MomentsBf16(const uint16_t* x_PC, size_t pixels, size_t channels, double* mean_C,
                 double* square_C) {
  Moments(x_PC, pixels, channels, mean_C, square_C);
}
void NormSiluF32(const float* x_PC, size_t pixels, size_t channels, const ChannelAffine& affine,
                 float* y_PC) {
  Forward(x_PC, pixels, channels, affine, y_PC);
}
void NormSiluBf16(const uint16_t* x_PC, size_t pixels, size_t channels, const ChannelAffine& affine,
                  uint16_t* y_PC) {
  Forward(x_PC, pixels, channels, affine, y_PC);
}
void SumsF32(const float* dy_PC, const float* x_PC, size_t pixels, size_t channels,
             const ChannelAffine& affine, double* sum_C, double* dot_C) {
  Sums(dy_PC, x_PC, pixels, channels, affine, sum_C, dot_C);
}
void SumsBf16(const uint16_t* dy_PC, const uint16_t* x_PC, size_t pixels, size_t channels,
              const ChannelAffine& affine, double* sum_C, double* dot_C) {
  Sums(dy_PC, x_PC, pixels, channels, affine, sum_C, dot_C);
}
void BackwardF32(const float* dy_PC, const float* x_PC, size_t pixels, size_t channels,
                 const ChannelAffine& affine, const ChannelCorrection& correction, float* dx_PC) {
  Backward(dy_PC, x_PC, pixels, channels, affine, correction, dx_PC);
}
void BackwardBf16(const uint16_t* dy_PC, const uint16_t* x_PC, size_t pixels, size_t channels,
                  const ChannelAffine& affine, const ChannelCorrection& correction,
                  uint16_t* dx_PC) {
  Backward(dy_PC, x_PC, pixels, channels, affine, correction, dx_PC);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(MomentsF32);
HWY_EXPORT(MomentsBf16);
HWY_EXPORT(NormSiluF32);
HWY_EXPORT(NormSiluBf16);
HWY_EXPORT(SumsF32);
HWY_EXPORT(SumsBf16);
HWY_EXPORT(BackwardF32);
HWY_EXPORT(BackwardBf16);

void ChannelMoments(const float* x_PC, size_t pixels, size_t channels, double* mean_C,
                    double* square_C) noexcept {
  HWY_DYNAMIC_DISPATCH(MomentsF32)(x_PC, pixels, channels, mean_C, square_C);
}
void ChannelMoments(const uint16_t* x_PC, size_t pixels, size_t channels, double* mean_C,
                    double* square_C) noexcept {
  HWY_DYNAMIC_DISPATCH(MomentsBf16)(x_PC, pixels, channels, mean_C, square_C);
}
void NormSilu(const float* x_PC, size_t pixels, size_t channels, const ChannelAffine& affine,
              float* y_PC) noexcept {
  HWY_DYNAMIC_DISPATCH(NormSiluF32)(x_PC, pixels, channels, affine, y_PC);
}
void NormSilu(const uint16_t* x_PC, size_t pixels, size_t channels, const ChannelAffine& affine,
              uint16_t* y_PC) noexcept {
  HWY_DYNAMIC_DISPATCH(NormSiluBf16)(x_PC, pixels, channels, affine, y_PC);
}
void NormSiluSums(const float* dy_PC, const float* x_PC, size_t pixels, size_t channels,
                  const ChannelAffine& affine, double* sum_C, double* dot_C) noexcept {
  HWY_DYNAMIC_DISPATCH(SumsF32)(dy_PC, x_PC, pixels, channels, affine, sum_C, dot_C);
}
void NormSiluSums(const uint16_t* dy_PC, const uint16_t* x_PC, size_t pixels, size_t channels,
                  const ChannelAffine& affine, double* sum_C, double* dot_C) noexcept {
  HWY_DYNAMIC_DISPATCH(SumsBf16)(dy_PC, x_PC, pixels, channels, affine, sum_C, dot_C);
}
void NormSiluBackward(const float* dy_PC, const float* x_PC, size_t pixels, size_t channels,
                      const ChannelAffine& affine, const ChannelCorrection& correction,
                      float* dx_PC) noexcept {
  HWY_DYNAMIC_DISPATCH(BackwardF32)
  (dy_PC, x_PC, pixels, channels, affine, correction, dx_PC);
}
void NormSiluBackward(const uint16_t* dy_PC, const uint16_t* x_PC, size_t pixels, size_t channels,
                      const ChannelAffine& affine, const ChannelCorrection& correction,
                      uint16_t* dx_PC) noexcept {
  HWY_DYNAMIC_DISPATCH(BackwardBf16)
  (dy_PC, x_PC, pixels, channels, affine, correction, dx_PC);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
