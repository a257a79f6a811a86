#include "lwm/kernels/conv/winograd.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/conv/winograd.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

template <class V>
struct Four {
  V a, b, c, d;
};
template <class V>
struct Two {
  V a, b;
};

// One dimension of the three transforms (Lavin and Gray 2016, section 4.1). In two dimensions each
// is applied to the columns and then to the rows of the result: B^T d B, A^T m A, G w G^T.
//   B^T = | 1  0 -1  0 |   A^T = | 1  1  1  0 |   G = | 1    0   0  |
//         | 0  1  1  0 |         | 0  1 -1 -1 |       | 1/2  1/2 1/2|
//         | 0 -1  1  0 |                              | 1/2 -1/2 1/2|
//         | 0  1  0 -1 |                              | 0    0   1  |
template <class V>
HWY_INLINE Four<V> InputStep(V a, V b, V c, V d) {
  return {hn::Sub(a, c), hn::Add(b, c), hn::Sub(c, b), hn::Sub(b, d)};
}
template <class V>
HWY_INLINE Two<V> OutputStep(V a, V b, V c, V d) {
  return {hn::Add(a, hn::Add(b, c)), hn::Sub(hn::Sub(b, c), d)};
}

// Place of tile t: its image, and the row and column of its first output.
struct TilePlace {
  TilePlace(const WinogradGrid& grid, size_t t)
      : image(t / grid.tiles_per_image()),
        row(t % grid.tiles_per_image() / grid.tiles_across() * 2),
        column(t % grid.tiles_per_image() % grid.tiles_across() * 2) {}
  size_t image, row, column;
};

// Loads column `column` of a 4x4 patch and transforms it.
template <class D>
HWY_INLINE Four<hn::Vec<D>> InputColumn(D d, const float* const* pixels, size_t column, size_t c) {
  return InputStep(hn::LoadU(d, pixels[column] + c), hn::LoadU(d, pixels[4 + column] + c),
                   hn::LoadU(d, pixels[8 + column] + c), hn::LoadU(d, pixels[12 + column] + c));
}

// One row of the 4x4 results, each in its plane.
template <class D, class V>
HWY_INLINE void StoreFour(D d, const Four<V>& row, size_t plane, float* to) {
  hn::StoreU(row.a, d, to);
  hn::StoreU(row.b, d, to + plane);
  hn::StoreU(row.c, d, to + 2 * plane);
  hn::StoreU(row.d, d, to + 3 * plane);
}

void Input(const WinogradGrid& grid, const float* x_NHWC, const float* zeros_C, size_t channels,
           const WinogradTiles& tiles, float* v_KTC) {
  const size_t plane = tiles.plane;
  for (size_t t = 0; t < tiles.count; ++t) {
    const TilePlace place(grid, tiles.first + t);
    // Pointers once per tile: the loop over channels then has no case for the border, whose pixels
    // are a row of zeros.
    const float* pixels[16];
    for (size_t i = 0; i < 16; ++i) {
      // One before the tile wraps around to a large number.
      const size_t row = place.row + i / 4 - 1, column = place.column + i % 4 - 1;
      const bool inside = row < grid.height && column < grid.width;
      const size_t at = (place.image * grid.height + row) * grid.width + column;
      pixels[i] = inside ? x_NHWC + at * channels : zeros_C;
    }
    float* v = v_KTC + t * channels;
    // Both dimensions for a few channels at a time, without storing in between.
    ForEachLanes(channels, [&](auto d, size_t c) HWY_ATTR {
      const auto p = InputColumn(d, pixels, 0, c), q = InputColumn(d, pixels, 1, c);
      const auto r = InputColumn(d, pixels, 2, c), s = InputColumn(d, pixels, 3, c);
      StoreFour(d, InputStep(p.a, q.a, r.a, s.a), plane, v + c);
      StoreFour(d, InputStep(p.b, q.b, r.b, s.b), plane, v + 4 * plane + c);
      StoreFour(d, InputStep(p.c, q.c, r.c, s.c), plane, v + 8 * plane + c);
      StoreFour(d, InputStep(p.d, q.d, r.d, s.d), plane, v + 12 * plane + c);
    });
  }
}

// Column `column` of the 4x4 products of a tile, transformed.
template <class D>
HWY_INLINE Two<hn::Vec<D>> OutputColumn(D d, const float* m, size_t plane, size_t column) {
  return OutputStep(hn::LoadU(d, m + column * plane), hn::LoadU(d, m + (4 + column) * plane),
                    hn::LoadU(d, m + (8 + column) * plane),
                    hn::LoadU(d, m + (12 + column) * plane));
}

template <class D>
HWY_INLINE void StorePixel(D d, hn::Vec<D> value, const float* residual, size_t at, float* y) {
  if (residual) value = hn::Add(value, hn::LoadU(d, residual + at));
  hn::StoreU(value, d, y + at);
}

void Output(const WinogradGrid& grid, const float* m_KTC, const float* bias_C,
            const float* residual_NHWC, size_t channels, const WinogradTiles& tiles,
            float* y_NHWC) {
  const size_t plane = tiles.plane;
  for (size_t t = 0; t < tiles.count; ++t) {
    const TilePlace place(grid, tiles.first + t);
    // With an odd height or width the last tiles reach beyond the image.
    const bool below = place.row + 1 < grid.height, right = place.column + 1 < grid.width;
    const size_t row_step = grid.width * channels;
    const size_t start =
        ((place.image * grid.height + place.row) * grid.width + place.column) * channels;
    ForEachLanes(channels, [&](auto d, size_t c) HWY_ATTR {
      const float* m = m_KTC + t * channels + c;
      const auto p = OutputColumn(d, m, plane, 0), q = OutputColumn(d, m, plane, 1);
      const auto r = OutputColumn(d, m, plane, 2), s = OutputColumn(d, m, plane, 3);
      const auto bias = hn::LoadU(d, bias_C + c);
      const auto top = OutputStep(p.a, q.a, r.a, s.a), bottom = OutputStep(p.b, q.b, r.b, s.b);
      const size_t at = start + c;
      StorePixel(d, hn::Add(top.a, bias), residual_NHWC, at, y_NHWC);
      if (right) StorePixel(d, hn::Add(top.b, bias), residual_NHWC, at + channels, y_NHWC);
      if (!below) return;
      StorePixel(d, hn::Add(bottom.a, bias), residual_NHWC, at + row_step, y_NHWC);
      if (right)
        StorePixel(d, hn::Add(bottom.b, bias), residual_NHWC, at + row_step + channels, y_NHWC);
    });
  }
}

// The transpose of OutputStep: multiplies by A.
template <class V>
HWY_INLINE Four<V> OutputGradientStep(V a, V b) {
  return {a, hn::Add(a, b), hn::Sub(a, b), hn::Neg(b)};
}

void OutputGradient(const WinogradGrid& grid, const float* dy_NHWC, const float* zeros_C,
                    size_t channels, const WinogradTiles& tiles, float* dm_KTC) {
  const size_t plane = tiles.plane;
  for (size_t t = 0; t < tiles.count; ++t) {
    const TilePlace place(grid, tiles.first + t);
    const size_t start =
        ((place.image * grid.height + place.row) * grid.width + place.column) * channels;
    const bool below = place.row + 1 < grid.height, right = place.column + 1 < grid.width;
    const float* top = dy_NHWC + start;
    const float* bottom = top + grid.width * channels;
    const float* pixels[4] = {top, right ? top + channels : zeros_C, below ? bottom : zeros_C,
                              below && right ? bottom + channels : zeros_C};
    float* dm = dm_KTC + t * channels;
    ForEachLanes(channels, [&](auto d, size_t c) HWY_ATTR {
      const auto load = [&](size_t i) HWY_ATTR { return hn::LoadU(d, pixels[i] + c); };
      const auto p = OutputGradientStep(load(0), load(2)), q = OutputGradientStep(load(1), load(3));
      StoreFour(d, OutputGradientStep(p.a, q.a), plane, dm + c);
      StoreFour(d, OutputGradientStep(p.b, q.b), plane, dm + 4 * plane + c);
      StoreFour(d, OutputGradientStep(p.c, q.c), plane, dm + 8 * plane + c);
      StoreFour(d, OutputGradientStep(p.d, q.d), plane, dm + 12 * plane + c);
    });
  }
}

// Multiplies by G. The two middle rows share (a + c) / 2.
template <class D, class V>
HWY_INLINE Four<V> WeightsStep(D d, V a, V b, V c) {
  const V half = hn::Set(d, 0.5f), ends = hn::Mul(hn::Add(a, c), half);
  return {a, hn::MulAdd(b, half, ends), hn::NegMulAdd(b, half, ends), c};
}

void Weights(const float* w_OHWI, bool turned, size_t out, size_t in, size_t plane, float* u_KOI) {
  for (size_t o = 0; o < out; ++o) {
    const float* w = w_OHWI + o * 9 * in;
    float* u = u_KOI + o * in;
    ForEachLanes(in, [&](auto d, size_t i) HWY_ATTR {
      // Half a turn reverses the order of the nine taps.
      const auto load = [&](size_t at)
                            HWY_ATTR { return hn::LoadU(d, w + (turned ? 8 - at : at) * in + i); };
      const auto p = WeightsStep(d, load(0), load(3), load(6));
      const auto q = WeightsStep(d, load(1), load(4), load(7));
      const auto r = WeightsStep(d, load(2), load(5), load(8));
      StoreFour(d, WeightsStep(d, p.a, q.a, r.a), plane, u + i);
      StoreFour(d, WeightsStep(d, p.b, q.b, r.b), plane, u + 4 * plane + i);
      StoreFour(d, WeightsStep(d, p.c, q.c, r.c), plane, u + 8 * plane + i);
      StoreFour(d, WeightsStep(d, p.d, q.d, r.d), plane, u + 12 * plane + i);
    });
  }
}

template <class V>
struct Three {
  V a, b, c;
};
// The transpose of WeightsStep: multiplies by G^T.
template <class D, class V>
HWY_INLINE Three<V> WeightsGradientStep(D d, V a, V b, V c, V e) {
  const V half = hn::Set(d, 0.5f), sum = hn::Mul(hn::Add(b, c), half);
  return {hn::Add(a, sum), hn::Mul(hn::Sub(b, c), half), hn::Add(sum, e)};
}

void WeightsGradient(const float* du_KOI, size_t plane, size_t out, size_t in, float* dw_OHWI) {
  for (size_t o = 0; o < out; ++o) {
    float* dw = dw_OHWI + o * 9 * in;
    ForEachLanes(in, [&](auto d, size_t i) HWY_ATTR {
      const auto column = [&](size_t at) HWY_ATTR {
        const float* du = du_KOI + at * plane + o * in + i;
        return WeightsGradientStep(d, hn::LoadU(d, du), hn::LoadU(d, du + 4 * plane),
                                   hn::LoadU(d, du + 8 * plane), hn::LoadU(d, du + 12 * plane));
      };
      const auto p = column(0), q = column(1), r = column(2), s = column(3);
      const auto store = [&](const auto& row, size_t at) HWY_ATTR {
        hn::StoreU(row.a, d, dw + at * in + i);
        hn::StoreU(row.b, d, dw + (at + 1) * in + i);
        hn::StoreU(row.c, d, dw + (at + 2) * in + i);
      };
      store(WeightsGradientStep(d, p.a, q.a, r.a, s.a), 0);
      store(WeightsGradientStep(d, p.b, q.b, r.b, s.b), 3);
      store(WeightsGradientStep(d, p.c, q.c, r.c, s.c), 6);
    });
  }
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(Input);
HWY_EXPORT(Output);
HWY_EXPORT(OutputGradient);
HWY_EXPORT(Weights);
HWY_EXPORT(WeightsGradient);

void WinogradInput(const WinogradGrid& grid, const float* x_NHWC, const float* zeros_C,
                   size_t channels, const WinogradTiles& tiles, float* v_KTC) noexcept {
  HWY_DYNAMIC_DISPATCH(Input)(grid, x_NHWC, zeros_C, channels, tiles, v_KTC);
}
void WinogradOutput(const WinogradGrid& grid, const float* m_KTC, const float* bias_C,
                    const float* residual_NHWC, size_t channels, const WinogradTiles& tiles,
                    float* y_NHWC) noexcept {
  HWY_DYNAMIC_DISPATCH(Output)
  (grid, m_KTC, bias_C, residual_NHWC, channels, tiles, y_NHWC);
}
void WinogradOutputGradient(const WinogradGrid& grid, const float* dy_NHWC, const float* zeros_C,
                            size_t channels, const WinogradTiles& tiles, float* dm_KTC) noexcept {
  HWY_DYNAMIC_DISPATCH(OutputGradient)
  (grid, dy_NHWC, zeros_C, channels, tiles, dm_KTC);
}
void WinogradWeights(const float* w_OHWI, bool turned, size_t out, size_t in, size_t plane,
                     float* u_KOI) noexcept {
  HWY_DYNAMIC_DISPATCH(Weights)(w_OHWI, turned, out, in, plane, u_KOI);
}
void WinogradWeightsGradient(const float* du_KOI, size_t plane, size_t out, size_t in,
                             float* dw_OHWI) noexcept {
  HWY_DYNAMIC_DISPATCH(WeightsGradient)(du_KOI, plane, out, in, dw_OHWI);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
