#include "lwm/ops/winograd_conv.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/kernels/winograd.h"

namespace lwm::ops {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;
constexpr auto kPlanes = static_cast<int64_t>(kernels::kWinogradPlanes);
// Planes that are powers of two apart would share the same few lines of the cache.
constexpr int64_t kPlaneSkew = 80;

// Below so many runs of tiles, planes are what is shared among threads: every run reads all
// weights.
constexpr int64_t kFewestRuns = 12;

// Tiles that one task works on: their planes should stay in the second-level cache, yet be enough
// rows for an efficient matrix product.
int64_t TilesAtOnce(int64_t in, int64_t out) {
  constexpr int64_t kFloats = int64_t{1} << 19;
  return std::clamp<int64_t>(kFloats / (kPlanes * (in + out)) / 16 * 16, 96, 256);
}

// [16,tiles,C] whose planes are skewed.
at::Tensor MakePlanes(int64_t tiles, int64_t channels) {
  const int64_t plane = tiles * channels + kPlaneSkew;
  return at::empty({kPlanes * plane}, at::TensorOptions(at::kFloat))
      .as_strided({kPlanes, tiles, channels}, {plane, channels, 1});
}

// g w g^T of every 3x3 kernel, [16,I,O].
at::Tensor TransformWeights(const at::Tensor& weight_OIHW) {
  const at::Tensor g = at::tensor({1.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, 0.0, 0.0, 1.0},
                                  at::TensorOptions(at::kDouble))
                           .view({4, 3});
  const int64_t out = weight_OIHW.size(0), in = weight_OIHW.size(1);
  const at::Tensor columns_OIHb = at::matmul(weight_OIHW.to(at::kDouble), g.t());
  const at::Tensor u_OIba = at::matmul(columns_OIHb.transpose(2, 3), g.t());
  return u_OIba.permute({3, 2, 1, 0}).to(at::kFloat).reshape({kPlanes, in, out}).contiguous();
}

}  // namespace

WinogradConv2d::WinogradConv2d(const at::Tensor& weight_OIHW, const at::Tensor& bias_O) {
  LWM_REQUIRE(weight_OIHW.dim() == 4 && weight_OIHW.size(2) == 3 && weight_OIHW.size(3) == 3 &&
                  weight_OIHW.scalar_type() == at::kFloat,
              "WinogradConv2d: want f32 weights [O,I,3,3], got ", weight_OIHW.sizes(), " ",
              weight_OIHW.scalar_type());
  LWM_REQUIRE(
      bias_O.sizes() == weight_OIHW.sizes().slice(0, 1) && bias_O.scalar_type() == at::kFloat,
      "WinogradConv2d: want f32 bias [", weight_OIHW.size(0), "], got ", bias_O.sizes(), " ",
      bias_O.scalar_type());
  const at::NoGradGuard no_grad;
  weight_KIO_ = TransformWeights(weight_OIHW);
  bias_O_ = bias_O.detach().clone();
}

at::Tensor WinogradConv2d::RequireInput(const at::Tensor& x_NCHW) const {
  LWM_CHECK(defined(), "a convolution without weights");
  LWM_REQUIRE(x_NCHW.dim() == 4 && x_NCHW.size(1) == weight_KIO_.size(1) &&
                  x_NCHW.scalar_type() == at::kFloat,
              "WinogradConv2d: want f32 x [N,", weight_KIO_.size(1), ",H,W], got ", x_NCHW.sizes(),
              " ", x_NCHW.scalar_type());
  return x_NCHW.contiguous(kChannelsLast);
}

at::Tensor WinogradConv2d::Run(const at::Tensor& x_NCHW) const {
  const at::Tensor x = RequireInput(x_NCHW);
  const at::Tensor y_NCHW =
      at::empty({x.size(0), weight_KIO_.size(2), x.size(2), x.size(3)}, x.options(), kChannelsLast);
  RunInto(x, nullptr, y_NCHW);
  return y_NCHW;
}

void WinogradConv2d::AddTo(const at::Tensor& y_NCHW, const at::Tensor& x_NCHW) const {
  const at::Tensor x = RequireInput(x_NCHW);
  LWM_REQUIRE(
      y_NCHW.dim() == 4 && y_NCHW.size(0) == x.size(0) && y_NCHW.size(1) == weight_KIO_.size(2) &&
          y_NCHW.size(2) == x.size(2) && y_NCHW.size(3) == x.size(3) &&
          y_NCHW.scalar_type() == at::kFloat && y_NCHW.is_contiguous(kChannelsLast),
      "WinogradConv2d: want f32 y [", x.size(0), ",", weight_KIO_.size(2), ",", x.size(2), ",",
      x.size(3), "] in channels-last layout, got ", y_NCHW.sizes(), " ", y_NCHW.scalar_type());
  RunInto(x, y_NCHW.const_data_ptr<float>(), y_NCHW);
}

// What the transforms of all tiles of one call share.
struct WinogradConv2d::Job {
  kernels::WinogradGrid grid;
  int64_t in, out;
  const float *x, *zeros, *bias, *residual;
  float* y;

  void Input(int64_t first, int64_t tiles, int64_t plane, float* v_KTI) const {
    kernels::WinogradInput(grid, x, zeros, static_cast<size_t>(in), static_cast<size_t>(first),
                           static_cast<size_t>(tiles), static_cast<size_t>(plane), v_KTI);
  }
  void Output(const float* m_KTO, int64_t first, int64_t tiles, int64_t plane) const {
    kernels::WinogradOutput(grid, m_KTO, static_cast<size_t>(plane), bias, residual,
                            static_cast<size_t>(out), static_cast<size_t>(first),
                            static_cast<size_t>(tiles), y);
  }
};

void WinogradConv2d::RunInto(const at::Tensor& x_NCHW, const float* residual,
                             const at::Tensor& y_NCHW) const {
  if (x_NCHW.numel() == 0) return;
  const at::Tensor zeros_I = at::zeros({x_NCHW.size(1)}, x_NCHW.options());
  const Job job{{static_cast<size_t>(x_NCHW.size(2)), static_cast<size_t>(x_NCHW.size(3))},
                weight_KIO_.size(1),
                weight_KIO_.size(2),
                x_NCHW.const_data_ptr<float>(),
                zeros_I.const_data_ptr<float>(),
                bias_O_.const_data_ptr<float>(),
                residual,
                y_NCHW.mutable_data_ptr<float>()};
  const int64_t tiles = x_NCHW.size(0) * static_cast<int64_t>(job.grid.tiles_per_image());
  const int64_t at_once = TilesAtOnce(job.in, job.out);
  if (tiles < kFewestRuns * at_once) {
    RunByPlanes(job, tiles);
  } else {
    RunByTiles(job, tiles, at_once);
  }
}

void WinogradConv2d::RunByTiles(const Job& job, int64_t all, int64_t at_once) const {
  at::parallel_for(0, (all + at_once - 1) / at_once, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    const at::Tensor v_KTI = MakePlanes(at_once, job.in), m_KTO = MakePlanes(at_once, job.out);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task * at_once, tiles = std::min(at_once, all - first);
      job.Input(first, tiles, v_KTI.stride(0), v_KTI.mutable_data_ptr<float>());
      at::Tensor product_KTO = m_KTO.narrow(1, 0, tiles);
      at::bmm_out(product_KTO, v_KTI.narrow(1, 0, tiles), weight_KIO_);
      job.Output(m_KTO.const_data_ptr<float>(), first, tiles, m_KTO.stride(0));
    }
  });
}

void WinogradConv2d::RunByPlanes(const Job& job, int64_t tiles) const {
  constexpr int64_t kGrain = 16;
  const at::Tensor v_KTI = MakePlanes(tiles, job.in), m_KTO = MakePlanes(tiles, job.out);
  at::parallel_for(0, tiles, kGrain, [&](int64_t begin, int64_t end) {
    job.Input(begin, end - begin, v_KTI.stride(0),
              v_KTI.mutable_data_ptr<float>() + begin * job.in);
  });
  at::parallel_for(0, kPlanes, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    for (int64_t k = begin; k < end; ++k) {
      at::Tensor product_TO = m_KTO.select(0, k);
      at::mm_out(product_TO, v_KTI.select(0, k), weight_KIO_.select(0, k));
    }
  });
  at::parallel_for(0, tiles, kGrain, [&](int64_t begin, int64_t end) {
    job.Output(m_KTO.const_data_ptr<float>() + begin * job.out, begin, end - begin,
               m_KTO.stride(0));
  });
}

}  // namespace lwm::ops
