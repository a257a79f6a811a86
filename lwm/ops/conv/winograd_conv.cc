#include "lwm/ops/conv/winograd_conv.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/kernels/conv/winograd.h"
#include "lwm/ops/serial_mkl.h"

namespace lwm::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;
constexpr auto kPlanes = static_cast<int64_t>(kernels::kWinogradPlanes);
// Floats added between planes. A tile is written to the same place of all 16 planes: planes a power
// of two apart would compete for the same few sets of the cache.
constexpr int64_t kPlaneSkew = 80;

// With fewer runs of tiles than this, threads share planes instead of runs: every run reads all
// weights, which is too much for few tiles, and few runs divide badly among threads.
constexpr int64_t kFewestRuns = 12;

constexpr int64_t kTileGrain = 16, kRowGrain = 8;  // tiles, rows of weights that a task transforms
constexpr int64_t kGradientTiles = 2048;           // whose planes the weight gradient holds at once

// Tiles of one task: few enough for their planes (2 MiB at this size) to stay in the second-level
// cache, and at least 96 rows, for an efficient matrix product.
int64_t TilesAtOnce(int64_t in, int64_t out) {
  constexpr int64_t kFloats = int64_t{1} << 19;
  return std::clamp<int64_t>(kFloats / (kPlanes * (in + out)) / 16 * 16, 96, 256);
}

// Returns [16,tiles,C] with skewed planes.
at::Tensor MakePlanes(int64_t tiles, int64_t channels) {
  const int64_t plane = tiles * channels + kPlaneSkew;
  return at::empty({kPlanes * plane}, at::TensorOptions(at::kFloat))
      .as_strided({kPlanes, tiles, channels}, {plane, channels, 1});
}

kernels::WinogradTiles Tiles(int64_t first, int64_t count, int64_t plane) {
  return {static_cast<size_t>(first), static_cast<size_t>(count), static_cast<size_t>(plane)};
}

// The arguments of one call, shared by the transforms of all its tiles.
struct Job {
  kernels::WinogradGrid grid;
  int64_t in, out;
  const float *x, *zeros, *bias, *residual;
  float* y;

  void Input(int64_t first, int64_t tiles, int64_t plane, float* v_KTI) const {
    kernels::WinogradInput(grid, x, zeros, static_cast<size_t>(in), Tiles(first, tiles, plane),
                           v_KTI);
  }
  void Output(const float* m_KTO, int64_t first, int64_t tiles, int64_t plane) const {
    kernels::WinogradOutput(grid, m_KTO, bias, residual, static_cast<size_t>(out),
                            Tiles(first, tiles, plane), y);
  }
};

// Each thread takes runs of tiles from input to output: transformed inputs and products of a run
// stay in its caches, and no thread waits for another.
void RunByTiles(const Job& job, const at::Tensor& weight_KIO, int64_t all, int64_t at_once) {
  at::parallel_for(0, (all + at_once - 1) / at_once, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    const SerialMkl serial;
    const at::Tensor v_KTI = MakePlanes(at_once, job.in), m_KTO = MakePlanes(at_once, job.out);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task * at_once, tiles = std::min(at_once, all - first);
      job.Input(first, tiles, v_KTI.stride(0), v_KTI.mutable_data_ptr<float>());
      at::Tensor product_KTO = m_KTO.narrow(1, 0, tiles);
      at::bmm_out(product_KTO, v_KTI.narrow(1, 0, tiles), weight_KIO);
      job.Output(m_KTO.const_data_ptr<float>(), first, tiles, m_KTO.stride(0));
    }
  });
}

// Three steps over all tiles, each divided over the threads. Weights are read once in all: a
// plane's matrix belongs to one thread.
void RunByPlanes(const Job& job, const at::Tensor& weight_KIO, int64_t tiles) {
  const at::Tensor v_KTI = MakePlanes(tiles, job.in), m_KTO = MakePlanes(tiles, job.out);
  at::parallel_for(0, tiles, kTileGrain, [&](int64_t begin, int64_t end) {
    job.Input(begin, end - begin, v_KTI.stride(0),
              v_KTI.mutable_data_ptr<float>() + begin * job.in);
  });
  at::parallel_for(0, kPlanes, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    const SerialMkl serial;
    at::Tensor product_KTO = m_KTO.slice(0, begin, end);
    at::bmm_out(product_KTO, v_KTI.slice(0, begin, end), weight_KIO.slice(0, begin, end));
  });
  at::parallel_for(0, tiles, kTileGrain, [&](int64_t begin, int64_t end) {
    job.Output(m_KTO.const_data_ptr<float>() + begin * job.out, begin, end - begin,
               m_KTO.stride(0));
  });
}

// y = residual (if any) + bias + the convolution whose 16 matrices are weight_KIO.
void Convolve(const at::Tensor& x_NCHW, const at::Tensor& weight_KIO, const at::Tensor& bias_O,
              const float* residual, const at::Tensor& y_NCHW) {
  if (x_NCHW.numel() == 0) return;
  const at::Tensor zeros_I = at::zeros({x_NCHW.size(1)}, x_NCHW.options());
  const Job job{{static_cast<size_t>(x_NCHW.size(2)), static_cast<size_t>(x_NCHW.size(3))},
                weight_KIO.size(1),
                weight_KIO.size(2),
                x_NCHW.const_data_ptr<float>(),
                zeros_I.const_data_ptr<float>(),
                bias_O.const_data_ptr<float>(),
                residual,
                y_NCHW.mutable_data_ptr<float>()};
  const int64_t tiles = x_NCHW.size(0) * static_cast<int64_t>(job.grid.tiles_per_image());
  const int64_t at_once = TilesAtOnce(job.in, job.out);
  if (tiles < kFewestRuns * at_once) {
    RunByPlanes(job, weight_KIO, tiles);
  } else {
    RunByTiles(job, weight_KIO, tiles, at_once);
  }
}

// The 16 matrices of channels-last weights, [16,O,I]; with `turned` those of the kernel turned by
// half a turn, for the gradient of x.
at::Tensor TransformWeights(const at::Tensor& weight_OIHW, bool turned) {
  const int64_t out = weight_OIHW.size(0), in = weight_OIHW.size(1);
  const at::Tensor u_KOI = MakePlanes(out, in);
  const auto* w = weight_OIHW.const_data_ptr<float>();
  auto* u = u_KOI.mutable_data_ptr<float>();
  const auto plane = static_cast<size_t>(u_KOI.stride(0));
  at::parallel_for(0, out, kRowGrain, [&](int64_t begin, int64_t end) {
    kernels::WinogradWeights(w + begin * 9 * in, turned, static_cast<size_t>(end - begin),
                             static_cast<size_t>(in), plane, u + begin * in);
  });
  return u_KOI;
}

at::Tensor EmptyImage(const at::Tensor& like_NCHW, int64_t channels) {
  return at::empty({like_NCHW.size(0), channels, like_NCHW.size(2), like_NCHW.size(3)},
                   like_NCHW.options(), kChannelsLast);
}

// The weight gradient in the transformed domain: du_KOI = dm^T v, summed over runs of tiles. The
// first run sets it. Threads share the 16 planes, so that each sum has one order whatever their
// number.
struct WeightGradientJob {
  kernels::WinogradGrid grid;
  const at::Tensor &x_NCHW, &dy_NCHW, &zeros_C;
  at::Tensor v_KTI, dm_KTO, du_KOI;

  void Transform(int64_t first, int64_t tiles) const {
    const auto *x = x_NCHW.const_data_ptr<float>(), *dy = dy_NCHW.const_data_ptr<float>(),
               *zeros = zeros_C.const_data_ptr<float>();
    auto *v = v_KTI.mutable_data_ptr<float>(), *dm = dm_KTO.mutable_data_ptr<float>();
    const int64_t in = v_KTI.size(2), out = dm_KTO.size(2);
    at::parallel_for(0, tiles, kTileGrain, [&](int64_t begin, int64_t end) {
      const auto tiles_of = [&](const at::Tensor& planes) {
        return Tiles(first + begin, end - begin, planes.stride(0));
      };
      kernels::WinogradInput(grid, x, zeros, static_cast<size_t>(in), tiles_of(v_KTI),
                             v + begin * in);
      kernels::WinogradOutputGradient(grid, dy, zeros, static_cast<size_t>(out), tiles_of(dm_KTO),
                                      dm + begin * out);
    });
  }

  void Add(int64_t first, int64_t tiles) const {
    Transform(first, tiles);
    at::parallel_for(0, kPlanes, 1, [&](int64_t begin, int64_t end) {
      const at::NoGradGuard no_grad;
      const SerialMkl serial;
      at::Tensor sum_KOI = du_KOI.slice(0, begin, end);
      const at::Tensor dm_KOT = dm_KTO.slice(0, begin, end).narrow(1, 0, tiles).transpose(1, 2);
      const at::Tensor some_KTI = v_KTI.slice(0, begin, end).narrow(1, 0, tiles);
      if (first == 0) {
        at::bmm_out(sum_KOI, dm_KOT, some_KTI);
      } else {
        sum_KOI.baddbmm_(dm_KOT, some_KTI);
      }
    });
  }
};

at::Tensor WeightGradient(const at::Tensor& x_NCHW, const at::Tensor& dy_NCHW) {
  const int64_t in = x_NCHW.size(1), out = dy_NCHW.size(1);
  const kernels::WinogradGrid grid{static_cast<size_t>(x_NCHW.size(2)),
                                   static_cast<size_t>(x_NCHW.size(3))};
  const int64_t all = x_NCHW.size(0) * static_cast<int64_t>(grid.tiles_per_image());
  // The planes of all tiles at once would take four times the memory of x and dy.
  const int64_t at_once = std::min(all, kGradientTiles);
  const at::Tensor zeros_C = at::zeros({std::max(in, out)}, x_NCHW.options());
  const WeightGradientJob job{grid,
                              x_NCHW,
                              dy_NCHW,
                              zeros_C,
                              MakePlanes(at_once, in),
                              MakePlanes(at_once, out),
                              MakePlanes(out, in)};
  for (int64_t first = 0; first < all; first += at_once)
    job.Add(first, std::min(at_once, all - first));
  const at::Tensor dw_OIHW = at::empty({out, in, 3, 3}, x_NCHW.options(), kChannelsLast);
  const auto* du = job.du_KOI.const_data_ptr<float>();
  auto* dw = dw_OIHW.mutable_data_ptr<float>();
  const auto plane = static_cast<size_t>(job.du_KOI.stride(0));
  at::parallel_for(0, out, kRowGrain, [&](int64_t begin, int64_t end) {
    kernels::WinogradWeightsGradient(du + begin * in, plane, static_cast<size_t>(end - begin),
                                     static_cast<size_t>(in), dw + begin * 9 * in);
  });
  return dw_OIHW;
}

class WinogradFunction : public torch::autograd::Function<WinogradFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_NCHW,
                            const at::Tensor& weight_OIHW, const at::Tensor& bias_O) {
    // Not the transformed inputs, which take four times the memory of x.
    context->save_for_backward({x_NCHW, weight_OIHW});
    const at::Tensor u_KOI = TransformWeights(weight_OIHW, false);
    const at::Tensor y_NCHW = EmptyImage(x_NCHW, weight_OIHW.size(0));
    Convolve(x_NCHW, u_KOI.transpose(1, 2), bias_O, nullptr, y_NCHW);
    return y_NCHW;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    LWM_REQUIRE(!at::GradMode::is_enabled(), "WinogradTrainedConv2d has no second derivative");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor dy_NCHW = gradients[0].contiguous(kChannelsLast);
    at::Tensor dx_NCHW, dw_OIHW, dbias_O;
    if (context->needs_input_grad(0)) {
      // The same convolution with the turned kernel, from output to input channels: [16,O,I] as it
      // is.
      dx_NCHW = EmptyImage(saved[0], saved[0].size(1));
      Convolve(dy_NCHW, TransformWeights(saved[1], true),
               at::zeros({saved[0].size(1)}, dy_NCHW.options()), nullptr, dx_NCHW);
    }
    if (context->needs_input_grad(1)) dw_OIHW = WeightGradient(saved[0], dy_NCHW);
    if (context->needs_input_grad(2))
      dbias_O = dy_NCHW.permute({0, 2, 3, 1}).reshape({-1, dy_NCHW.size(1)}).sum(0);
    return {dx_NCHW, dw_OIHW, dbias_O};
  }
};

void RequireWeights(const char* op, const at::Tensor& weight_OIHW, const at::Tensor& bias_O) {
  LWM_REQUIRE(weight_OIHW.dim() == 4 && weight_OIHW.size(2) == 3 && weight_OIHW.size(3) == 3 &&
                  weight_OIHW.scalar_type() == at::kFloat,
              op, ": want f32 weights [O,I,3,3], got ", weight_OIHW.sizes(), " ",
              weight_OIHW.scalar_type());
  LWM_REQUIRE(
      bias_O.sizes() == weight_OIHW.sizes().slice(0, 1) && bias_O.scalar_type() == at::kFloat, op,
      ": want f32 bias [", weight_OIHW.size(0), "], got ", bias_O.sizes(), " ",
      bias_O.scalar_type());
}

void RequireImage(const char* op, const at::Tensor& x_NCHW, int64_t channels) {
  LWM_REQUIRE(x_NCHW.dim() == 4 && x_NCHW.size(1) == channels && x_NCHW.scalar_type() == at::kFloat,
              op, ": want f32 x [N,", channels, ",H,W], got ", x_NCHW.sizes(), " ",
              x_NCHW.scalar_type());
}

}  // namespace

WinogradConv2d::WinogradConv2d(const at::Tensor& weight_OIHW, const at::Tensor& bias_O) {
  RequireWeights("WinogradConv2d", weight_OIHW, bias_O);
  const at::NoGradGuard no_grad;
  const at::Tensor u_KOI = TransformWeights(weight_OIHW.contiguous(kChannelsLast), false);
  weight_KIO_ = u_KOI.transpose(1, 2).contiguous();
  bias_O_ = bias_O.detach().clone();
}

at::Tensor WinogradConv2d::RequireInput(const at::Tensor& x_NCHW) const {
  LWM_CHECK(defined(), "a convolution without weights");
  RequireImage("WinogradConv2d", x_NCHW, weight_KIO_.size(1));
  return x_NCHW.contiguous(kChannelsLast);
}

at::Tensor WinogradConv2d::Run(const at::Tensor& x_NCHW) const {
  const at::Tensor x = RequireInput(x_NCHW);
  const at::Tensor y_NCHW =
      at::empty({x.size(0), weight_KIO_.size(2), x.size(2), x.size(3)}, x.options(), kChannelsLast);
  Convolve(x, weight_KIO_, bias_O_, nullptr, y_NCHW);
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
  Convolve(x, weight_KIO_, bias_O_, y_NCHW.const_data_ptr<float>(), y_NCHW);
}

at::Tensor WinogradTrainedConv2d(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW,
                                 const at::Tensor& bias_O) {
  RequireWeights("WinogradTrainedConv2d", weight_OIHW, bias_O);
  RequireImage("WinogradTrainedConv2d", x_NCHW, weight_OIHW.size(1));
  LWM_REQUIRE(x_NCHW.numel() > 0 && weight_OIHW.numel() > 0,
              "WinogradTrainedConv2d: want images with pixels, got ", x_NCHW.sizes());
  return WinogradFunction::apply(x_NCHW.contiguous(kChannelsLast),
                                 weight_OIHW.contiguous(kChannelsLast), bias_O.contiguous());
}

}  // namespace lwm::ops
