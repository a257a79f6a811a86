#include "lwm/kernels/conv/winograd4.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/conv/winograd4.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

// One dimension of a plain convolution: Toom and Cook's interpolation at 0, +-a, +-b and infinity
// with a^2 = 1/2, b^2 = 2. The usual points +-1 and +-2 have three times these errors (Barabasz and
// others 2020 compare points). Points come in pairs +-p, so that even and odd terms are computed
// once and added or subtracted.
struct Plain {
  static constexpr size_t kPatch = 6, kForms = 6, kProducts = 6;
  static constexpr float kA = 0.70710678f, kB = 1.41421356f;

  template <class D, class V>
  static HWY_INLINE void Input(D d, const V* x, V* forms) {
    const V a = hn::Set(d, kA), b = hn::Set(d, kB), two = hn::Set(d, 2.0f), half = hn::Set(d, 0.5f);
    const V sum = hn::Set(d, 2.5f);
    const V even_a = hn::NegMulAdd(two, x[2], x[4]), odd_a = hn::NegMulAdd(two, x[1], x[3]);
    const V even_b = hn::NegMulAdd(half, x[2], x[4]), odd_b = hn::NegMulAdd(half, x[1], x[3]);
    forms[0] = hn::NegMulAdd(sum, x[2], hn::Add(x[0], x[4]));
    forms[1] = hn::MulAdd(a, odd_a, even_a);
    forms[2] = hn::NegMulAdd(a, odd_a, even_a);
    forms[3] = hn::MulAdd(b, odd_b, even_b);
    forms[4] = hn::NegMulAdd(b, odd_b, even_b);
    forms[5] = hn::NegMulAdd(sum, x[3], hn::Add(x[1], x[5]));
  }

  template <class D, class V>
  static HWY_INLINE void Output(D d, const V* m, V* y) {
    const V sum_a = hn::Add(m[1], m[2]), sum_b = hn::Add(m[3], m[4]);
    const V odd_a = hn::Mul(hn::Sub(m[1], m[2]), hn::Set(d, kA));
    const V odd_b = hn::Mul(hn::Sub(m[3], m[4]), hn::Set(d, kB));
    const V two = hn::Set(d, 2.0f), half = hn::Set(d, 0.5f);
    y[0] = hn::Add(m[0], hn::Add(sum_a, sum_b));
    y[1] = hn::Add(odd_a, odd_b);
    y[2] = hn::MulAdd(half, sum_a, hn::Mul(two, sum_b));
    y[3] = hn::MulAdd(half, odd_a, hn::MulAdd(two, odd_b, m[5]));
  }

  template <class D, class V>
  static HWY_INLINE void Weights(D d, V w0, V w1, V w2, V* u) {
    const V third = hn::Set(d, -2.0f / 3), sixth = hn::Set(d, 1.0f / 6);
    const V even_a = hn::Mul(third, hn::MulAdd(hn::Set(d, 0.5f), w2, w0));
    const V even_b = hn::Mul(sixth, hn::MulAdd(hn::Set(d, 2.0f), w2, w0));
    const V odd_a = hn::Mul(hn::Set(d, kA * (-2.0f / 3)), w1);
    const V odd_b = hn::Mul(hn::Set(d, kB / 6), w1);
    u[0] = w0;
    u[1] = hn::Add(even_a, odd_a);
    u[2] = hn::Sub(even_a, odd_a);
    u[3] = hn::Add(even_b, odd_b);
    u[4] = hn::Sub(even_b, odd_b);
    u[5] = w2;
  }
};

// One dimension after pixels a, b, c, d were repeated, their weights w0, w1, w2:
//   y0 = w0 a + (w1 + w2) b     y1 = (w0 + w1) b + w2 c
//   y2 = w0 b + (w1 + w2) c     y3 = (w0 + w1) c + w2 d
// which is interpolation at 0, 1, -1, +-i and infinity. At -1 the repeated image is 0, which saves
// a product. At i and -i it is c - b times a factor, so one plane of inputs serves both.
struct Doubled {
  static constexpr size_t kPatch = 4, kForms = 4, kProducts = 5;

  template <class D, class V>
  static HWY_INLINE void Input(D, const V* x, V* forms) {
    forms[0] = hn::Sub(x[0], x[2]);
    forms[1] = hn::Add(x[1], x[2]);
    forms[2] = hn::Sub(x[2], x[1]);
    forms[3] = hn::Sub(x[3], x[1]);
  }

  template <class D, class V>
  static HWY_INLINE void Output(D, const V* m, V* y) {
    y[0] = hn::Add(m[0], hn::Add(m[1], m[2]));
    y[1] = hn::Add(m[1], m[3]);
    y[2] = hn::Sub(m[1], m[2]);
    y[3] = hn::Add(hn::Sub(m[1], m[3]), m[4]);
  }

  template <class D, class V>
  static HWY_INLINE void Weights(D d, V w0, V w1, V w2, V* u) {
    const V half = hn::Set(d, 0.5f);
    u[0] = w0;
    u[1] = hn::Mul(half, hn::Add(w0, hn::Add(w1, w2)));
    u[2] = hn::Mul(half, hn::Sub(w0, hn::Add(w1, w2)));
    u[3] = hn::Mul(half, hn::Sub(w2, hn::Add(w0, w1)));
    u[4] = w2;
  }
};

// Place of tile t: its image, and the row and column of its first output, in units of four.
struct FourPlace {
  FourPlace(const Winograd4Grid& grid, size_t t)
      : image(t / grid.tiles_per_image()),
        row(t % grid.tiles_per_image() / grid.tiles_across()),
        column(t % grid.tiles_per_image() % grid.tiles_across()) {}
  size_t image, row, column;
};

template <class Kind>
void FindPixels(const Winograd4Grid& grid, const uint16_t* x_NHWC, const uint16_t* zeros_C,
                size_t channels, size_t t, const uint16_t** pixels) {
  const FourPlace place(grid, t);
  const size_t step = Kind::kPatch - 2;  // pixels from tile to tile
  for (size_t i = 0; i < Kind::kPatch * Kind::kPatch; ++i) {
    // One before the image wraps around to a large number.
    const size_t row = place.row * step + i / Kind::kPatch - 1;
    const size_t column = place.column * step + i % Kind::kPatch - 1;
    const bool inside = row < grid.height && column < grid.width;
    const size_t at = (place.image * grid.height + row) * grid.width + column;
    pixels[i] = inside ? x_NHWC + at * channels : zeros_C;
  }
}

template <class Kind>
void InputOf(const Winograd4Grid& grid, const uint16_t* x_NHWC, const uint16_t* zeros_C,
             size_t channels, const WinogradTiles& tiles, float* v_KTC) {
  constexpr size_t kPatch = Kind::kPatch, kForms = Kind::kForms;
  const size_t plane = tiles.plane;
  for (size_t t = 0; t < tiles.count; ++t) {
    const uint16_t* pixels[kPatch * kPatch];
    FindPixels<Kind>(grid, x_NHWC, zeros_C, channels, tiles.first + t, pixels);
    float* v = v_KTC + t * channels;
    ForEachLanes(channels, [&](auto d, size_t c) HWY_ATTR {
      using V = hn::Vec<decltype(d)>;
      V columns[kPatch][kForms];  // the patch with its columns transformed
      for (size_t j = 0; j < kPatch; ++j) {
        V x[kPatch];
        HWY_UNROLL(6)
        for (size_t i = 0; i < kPatch; ++i) x[i] = LoadLanes(d, pixels[i * kPatch + j] + c);
        Kind::Input(d, x, columns[j]);
      }
      for (size_t f = 0; f < kForms; ++f) {
        V x[kPatch], forms[kForms];
        HWY_UNROLL(6)
        for (size_t j = 0; j < kPatch; ++j) x[j] = columns[j][f];
        Kind::Input(d, x, forms);
        HWY_UNROLL(6)
        for (size_t g = 0; g < kForms; ++g)
          hn::StoreU(forms[g], d, v + (f * kForms + g) * plane + c);
      }
    });
  }
}

void Input4(const Winograd4Grid& grid, const uint16_t* x_NHWC, const uint16_t* zeros_C,
            size_t channels, const WinogradTiles& tiles, float* v_KTC) {
  const auto run = grid.doubles ? InputOf<Doubled> : InputOf<Plain>;
  run(grid, x_NHWC, zeros_C, channels, tiles, v_KTC);
}

// The kernel's transform for lanes of output channels, u[product], from its nine taps, `tap` floats
// apart.
template <class Kind, class D, class V = hn::Vec<D>>
HWY_INLINE void TransformKernel(D d, const float* from, size_t tap, V* u) {
  constexpr size_t kProducts = Kind::kProducts;
  V rows[3][kProducts];
  for (size_t j = 0; j < 3; ++j)
    Kind::Weights(d, hn::LoadU(d, from + j * tap), hn::LoadU(d, from + (3 + j) * tap),
                  hn::LoadU(d, from + (6 + j) * tap), rows[j]);
  for (size_t f = 0; f < kProducts; ++f)
    Kind::Weights(d, rows[0][f], rows[1][f], rows[2][f], u + f * kProducts);
}

// Scales each product and channel by its largest weight, so that the 16-bit integers are used
// fully: products differ in size by their points. An infinite weight, or NaN, makes the scale NaN,
// so that it is seen in the output; where all are so small that the scale would be 0, weights count
// as 0. WeightsOf computes the transforms again: kept, they would take up to four times the
// kernel's memory.
template <class Kind, class D>
HWY_INLINE void FindScales(D d, const float* w_9IO, size_t in, size_t stride, float* scale_K32) {
  using V = hn::Vec<decltype(d)>;
  constexpr size_t kAll = Kind::kProducts * Kind::kProducts;
  V most[kAll], u[kAll];
  for (size_t k = 0; k < kAll; ++k) most[k] = hn::Zero(d);
  auto finite = hn::Eq(most[0], most[0]);
  for (size_t i = 0; i < in; ++i) {
    TransformKernel<Kind>(d, w_9IO + i * stride, in * stride, u);
    for (size_t k = 0; k < kAll; ++k) {
      finite = hn::And(finite, hn::Eq(hn::Sub(u[k], u[k]), hn::Zero(d)));
      most[k] = hn::Max(most[k], hn::Abs(u[k]));
    }
  }
  const V nan = hn::NaN(d);
  for (size_t k = 0; k < kAll; ++k) {
    const V scale = hn::Mul(most[k], hn::Set(d, 1.0f / 32767));
    hn::StoreU(hn::IfThenElse(finite, scale, nan), d, scale_K32 + k * kWinograd4Panel);
  }
}

template <class Kind>
void WeightsOf(const float* w_9IO, size_t in, size_t stride, int16_t* u_KI32, float* scale_K32) {
  constexpr size_t kAll = Kind::kProducts * Kind::kProducts;
  const hn::ScalableTag<float> d;
  const hn::Rebind<int16_t, decltype(d)> d16;
  using V = hn::Vec<decltype(d)>;
  for (size_t c = 0; c < kWinograd4Panel; c += hn::Lanes(d)) {
    FindScales<Kind>(d, w_9IO + c, in, stride, scale_K32 + c);
    V reciprocal[kAll], u[kAll];
    for (size_t k = 0; k < kAll; ++k) {
      const V scale = hn::LoadU(d, scale_K32 + k * kWinograd4Panel + c);
      // False for NaN, 0, and scales so small that the reciprocal would be infinite.
      const auto usable = hn::Gt(scale, hn::Set(d, 1e-37f));
      reciprocal[k] = hn::IfThenElseZero(usable, hn::Div(hn::Set(d, 1.0f), scale));
    }
    for (size_t i = 0; i < in; ++i) {
      TransformKernel<Kind>(d, w_9IO + i * stride + c, in * stride, u);
      for (size_t k = 0; k < kAll; ++k) {
        // 0 where there is no reciprocal, even for a NaN or Inf, which NearestInt does not define.
        const V rounded =
            hn::IfThenElseZero(hn::Ne(reciprocal[k], hn::Zero(d)), hn::Mul(u[k], reciprocal[k]));
        hn::StoreU(hn::DemoteTo(d16, hn::NearestInt(rounded)), d16,
                   u_KI32 + (k * in + i) * kWinograd4Panel + c);
      }
    }
  }
}

void Weights4(const Winograd4Grid& grid, const float* w_9IO, size_t in, size_t stride,
              int16_t* u_KI32, float* scale_K32) {
  const auto run = grid.doubles ? WeightsOf<Doubled> : WeightsOf<Plain>;
  run(w_9IO, in, stride, u_KI32, scale_K32);
}

template <class Kind>
void OutputOf(const Winograd4Grid& grid, const float* m_KT32, const WinogradTiles& tiles,
              const Winograd4Result& result) {
  constexpr size_t kProducts = Kind::kProducts;
  const size_t pixel = result.pixel, row_step = grid.out_width() * pixel;
  for (size_t t = 0; t < tiles.count; ++t) {
    const FourPlace place(grid, tiles.first + t);
    const size_t row = 4 * place.row, column = 4 * place.column;
    const size_t rows = HWY_MIN(4, grid.out_height() - row);
    const size_t columns = HWY_MIN(4, grid.out_width() - column);
    const size_t start =
        ((place.image * grid.out_height() + row) * grid.out_width() + column) * pixel;
    ForEachLanes(result.channels, [&](auto d, size_t c) HWY_ATTR {
      using V = hn::Vec<decltype(d)>;
      const float* m = m_KT32 + t * kWinograd4Panel + c;
      V done[kProducts][4];
      for (size_t j = 0; j < kProducts; ++j) {
        V x[kProducts];
        HWY_UNROLL(6)
        for (size_t i = 0; i < kProducts; ++i)
          x[i] = hn::LoadU(d, m + (i * kProducts + j) * tiles.plane);
        Kind::Output(d, x, done[j]);
      }
      const V bias = hn::LoadU(d, result.bias_C + c);
      for (size_t i = 0; i < rows; ++i) {
        V x[kProducts], y[4];
        HWY_UNROLL(6)
        for (size_t j = 0; j < kProducts; ++j) x[j] = done[j][i];
        Kind::Output(d, x, y);
        for (size_t j = 0; j < columns; ++j) {
          const size_t at = start + i * row_step + j * pixel + c;
          V value = hn::Add(y[j], bias);
          if (result.residual_NHWC) value = hn::Add(value, LoadLanes(d, result.residual_NHWC + at));
          StoreLanes(value, d, result.y_NHWC + at);
        }
      }
    });
  }
}

void Output4(const Winograd4Grid& grid, const float* m_KT32, const WinogradTiles& tiles,
             const Winograd4Result& result) {
  const auto run = grid.doubles ? OutputOf<Doubled> : OutputOf<Plain>;
  run(grid, m_KT32, tiles, result);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(Input4);
HWY_EXPORT(Output4);
HWY_EXPORT(Weights4);

void Winograd4Input(const Winograd4Grid& grid, const uint16_t* x_NHWC, const uint16_t* zeros_C,
                    size_t channels, const WinogradTiles& tiles, float* v_KTC) noexcept {
  HWY_DYNAMIC_DISPATCH(Input4)(grid, x_NHWC, zeros_C, channels, tiles, v_KTC);
}
void Winograd4Output(const Winograd4Grid& grid, const float* m_KT32, const WinogradTiles& tiles,
                     const Winograd4Result& result) noexcept {
  HWY_DYNAMIC_DISPATCH(Output4)(grid, m_KT32, tiles, result);
}
void Winograd4Weights(const Winograd4Grid& grid, const float* w_9IO, size_t in, size_t stride,
                      int16_t* u_KI32, float* scale_K32) noexcept {
  HWY_DYNAMIC_DISPATCH(Weights4)(grid, w_9IO, in, stride, u_KI32, scale_K32);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
