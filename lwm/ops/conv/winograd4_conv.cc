#include "lwm/ops/conv/winograd4_conv.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/base/instruction_set.h"
#include "lwm/kernels/conv/winograd4.h"
#include "lwm/kernels/int16_product.h"

namespace lwm::ops {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;
constexpr auto kPanel = static_cast<int64_t>(kernels::kWinograd4Panel);
static_assert(kernels::kInt16Panel == kernels::kWinograd4Panel);
// Floats added between planes. A tile is written to the same place of all planes: planes a power of
// two apart would compete for the same few sets of the cache.
constexpr int64_t kPlaneSkew = 80;

// Most tiles of one run. Weights are widened once per run, so longer runs spend less on it.
constexpr int64_t kMostTiles = 96;
constexpr int64_t kTileGrain = 8;  // tiles that one task transforms

// With fewer runs of tiles than this, threads share panels of weights as well: few runs divide
// badly among threads.
constexpr int64_t kFewestRuns = 12;

size_t Size(int64_t n) { return static_cast<size_t>(n); }
const uint16_t* Bits(const at::Tensor& x) {
  return static_cast<const uint16_t*>(x.const_data_ptr());
}

// Tiles of one run: their transformed inputs (1 MiB at this size) should stay in the second-level
// cache. A multiple of 12, the rows of one block of Int16Product.
int64_t TilesAtOnce(const kernels::Winograd4Grid& grid, int64_t in) {
  constexpr int64_t kFloats = int64_t{1} << 18;
  const auto planes = static_cast<int64_t>(grid.planes());
  return std::clamp<int64_t>(kFloats / (planes * in) / 12 * 12, kMostTiles / 2, kMostTiles);
}

struct Planes {
  Planes(size_t planes, int64_t tiles, int64_t channels)
      : plane(tiles * channels + kPlaneSkew),
        values(at::empty({static_cast<int64_t>(planes) * plane}, at::TensorOptions(at::kFloat))) {}
  float* data() const { return values.mutable_data_ptr<float>(); }

  int64_t plane;  // floats from one to the next
  at::Tensor values;
};

// The arguments of one call, shared by all its tasks.
struct Job {
  kernels::Winograd4Grid grid;
  int64_t in, out;
  const uint16_t *x, *zeros;
  const int16_t* weight_PKI32;
  const float *scale_PK32, *bias;
  const uint16_t* residual;
  uint16_t* y;

  int64_t panels() const { return (out + kPanel - 1) / kPanel; }

  // Transforms tiles [first, first + tiles) into v_KTI from its tile `at` on.
  void Input(int64_t first, int64_t tiles, const Planes& v_KTI, int64_t at) const {
    kernels::Winograd4Input(grid, x, zeros, Size(in), {Size(first), Size(tiles), Size(v_KTI.plane)},
                            v_KTI.data() + at * in);
  }

  // Computes the outputs of tiles [first, first + tiles) in one panel. Their transformed inputs
  // begin at tile `at` of v_KTI.
  void Output(int64_t panel, int64_t first, int64_t tiles, const Planes& v_KTI, int64_t at,
              const Planes& m_KT32, float* widened_I32) const {
    const auto products = static_cast<int64_t>(grid.products());
    for (int64_t k = 0; k < products; ++k) {
      const float* v = v_KTI.data() + static_cast<int64_t>(grid.plane_of(Size(k))) * v_KTI.plane;
      const int64_t matrix = panel * products + k;
      kernels::Int16Product(v + at * in, Size(tiles), Size(in), weight_PKI32 + matrix * in * kPanel,
                            scale_PK32 + matrix * kPanel, widened_I32,
                            m_KT32.data() + k * m_KT32.plane);
    }
    const int64_t channel = panel * kPanel;
    kernels::Winograd4Output(grid, m_KT32.data(), {Size(first), Size(tiles), Size(m_KT32.plane)},
                             {Size(std::min(kPanel, out - channel)), Size(out), bias + channel,
                              residual ? residual + channel : nullptr, y + channel});
  }
};

// Buffers for the products of one task: one panel of outputs and one widened matrix of weights.
struct Scratch {
  Scratch(const Job& job, int64_t tiles)
      : m_KT32(job.grid.products(), tiles, kPanel), widened_I32(at::empty({job.in * kPanel})) {}
  Planes m_KT32;
  at::Tensor widened_I32;
};

// Each thread takes runs of tiles from input to output. Inputs are transformed once and meet one
// panel of weights after another, whose products stay in the cache until they are transformed back.
void RunByTiles(const Job& job, int64_t all, int64_t at_once) {
  at::parallel_for(0, (all + at_once - 1) / at_once, 1, [&](int64_t begin, int64_t end) {
    const Planes v_KTI(job.grid.planes(), at_once, job.in);
    const Scratch scratch(job, at_once);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task * at_once, tiles = std::min(at_once, all - first);
      job.Input(first, tiles, v_KTI, 0);
      for (int64_t panel = 0; panel < job.panels(); ++panel)
        job.Output(panel, first, tiles, v_KTI, 0, scratch.m_KT32,
                   scratch.widened_I32.mutable_data_ptr<float>());
    }
  });
}

// All inputs are transformed first; then a task is one run of tiles and one panel of weights.
void RunByPanels(const Job& job, int64_t all) {
  const Planes v_KTI(job.grid.planes(), all, job.in);
  at::parallel_for(0, all, kTileGrain, [&](int64_t begin, int64_t end) {
    job.Input(begin, end - begin, v_KTI, begin);
  });
  const int64_t runs = (all + kMostTiles - 1) / kMostTiles;
  at::parallel_for(0, job.panels() * runs, 1, [&](int64_t begin, int64_t end) {
    const Scratch scratch(job, std::min(all, kMostTiles));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % runs * kMostTiles;
      job.Output(task / runs, first, std::min(kMostTiles, all - first), v_KTI, first,
                 scratch.m_KT32, scratch.widened_I32.mutable_data_ptr<float>());
    }
  });
}

}  // namespace

bool Winograd4IsFaster() { return !AmxAvailable(); }

Winograd4Conv2d::Winograd4Conv2d(const at::Tensor& weight_OIHW, const at::Tensor& bias_O,
                                 bool doubles)
    : doubles_(doubles) {
  LWM_REQUIRE(weight_OIHW.dim() == 4 && weight_OIHW.size(2) == 3 && weight_OIHW.size(3) == 3 &&
                  weight_OIHW.numel() > 0 && weight_OIHW.is_floating_point(),
              "Winograd4Conv2d: want float weights [O,I,3,3], got ", weight_OIHW.sizes(), " ",
              weight_OIHW.scalar_type());
  LWM_REQUIRE(bias_O.sizes() == weight_OIHW.sizes().slice(0, 1) && bias_O.is_floating_point(),
              "Winograd4Conv2d: want float bias [", weight_OIHW.size(0), "], got ", bias_O.sizes(),
              " ", bias_O.scalar_type());
  const at::NoGradGuard no_grad;
  // The size of an image does not matter for weights.
  const kernels::Winograd4Grid grid{1, 1, doubles};
  const auto products = static_cast<int64_t>(grid.products());
  const int64_t out = weight_OIHW.size(0), in = weight_OIHW.size(1);
  const int64_t panels = (out + kPanel - 1) / kPanel;
  // Output channels last and padded to whole panels: the transform then runs along them in vectors.
  const at::Tensor w_9IO = at::constant_pad_nd(weight_OIHW.to(at::kFloat).permute({2, 3, 1, 0}),
                                               {0, panels * kPanel - out})
                               .contiguous();
  weight_PKI32_ = at::empty({panels, products, in, kPanel}, at::kShort);
  scale_PK32_ = at::empty({panels, products, kPanel}, at::kFloat);
  bias_O_ = bias_O.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  const auto* w = w_9IO.const_data_ptr<float>();
  auto* u = weight_PKI32_.mutable_data_ptr<int16_t>();
  auto* scale = scale_PK32_.mutable_data_ptr<float>();
  at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel)
      kernels::Winograd4Weights(grid, w + panel * kPanel, Size(in), Size(panels * kPanel),
                                u + panel * products * in * kPanel,
                                scale + panel * products * kPanel);
  });
}

at::Tensor Winograd4Conv2d::RequireInput(const at::Tensor& x_NCHW) const {
  LWM_CHECK(defined(), "a convolution without weights");
  const int64_t in = weight_PKI32_.size(2);
  LWM_REQUIRE(x_NCHW.dim() == 4 && x_NCHW.size(1) == in && x_NCHW.scalar_type() == at::kBFloat16,
              "Winograd4Conv2d: want bf16 x [N,", in, ",H,W], got ", x_NCHW.sizes(), " ",
              x_NCHW.scalar_type());
  return x_NCHW.contiguous(kChannelsLast);
}

void Winograd4Conv2d::Convolve(const at::Tensor& x_NCHW, bool add, const at::Tensor& y_NCHW) const {
  if (x_NCHW.numel() == 0) return;
  const at::Tensor zeros_I = at::zeros({x_NCHW.size(1)}, x_NCHW.options());
  const Job job{{Size(x_NCHW.size(2)), Size(x_NCHW.size(3)), doubles_},
                x_NCHW.size(1),
                y_NCHW.size(1),
                Bits(x_NCHW),
                Bits(zeros_I),
                weight_PKI32_.const_data_ptr<int16_t>(),
                scale_PK32_.const_data_ptr<float>(),
                bias_O_.const_data_ptr<float>(),
                add ? Bits(y_NCHW) : nullptr,
                static_cast<uint16_t*>(y_NCHW.mutable_data_ptr())};
  const int64_t tiles = x_NCHW.size(0) * static_cast<int64_t>(job.grid.tiles_per_image());
  const int64_t at_once = TilesAtOnce(job.grid, job.in);
  if (tiles < kFewestRuns * at_once) {
    RunByPanels(job, tiles);
  } else {
    RunByTiles(job, tiles, at_once);
  }
}

at::Tensor Winograd4Conv2d::Run(const at::Tensor& x_NCHW) const {
  const at::Tensor x = RequireInput(x_NCHW);
  const int64_t by = doubles_ ? 2 : 1;
  const at::Tensor y_NCHW = at::empty({x.size(0), bias_O_.size(0), by * x.size(2), by * x.size(3)},
                                      x.options(), kChannelsLast);
  Convolve(x, false, y_NCHW);
  return y_NCHW;
}

void Winograd4Conv2d::AddTo(const at::Tensor& y_NCHW, const at::Tensor& x_NCHW) const {
  const at::Tensor x = RequireInput(x_NCHW);
  const int64_t by = doubles_ ? 2 : 1;
  LWM_REQUIRE(
      y_NCHW.dim() == 4 && y_NCHW.size(0) == x.size(0) && y_NCHW.size(1) == bias_O_.size(0) &&
          y_NCHW.size(2) == by * x.size(2) && y_NCHW.size(3) == by * x.size(3) &&
          y_NCHW.scalar_type() == at::kBFloat16 && y_NCHW.is_contiguous(kChannelsLast),
      "Winograd4Conv2d: want bf16 y [", x.size(0), ",", bias_O_.size(0), ",", by * x.size(2), ",",
      by * x.size(3), "] in channels-last layout, got ", y_NCHW.sizes(), " ", y_NCHW.scalar_type());
  Convolve(x, true, y_NCHW);
}

}  // namespace lwm::ops
