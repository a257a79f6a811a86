#include "lwm/ops/conv/conv_gradient.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/instruction_set.h"
#include "lwm/base/round_up.h"
#include "lwm/kernels/attention/amx.h"
#include "lwm/kernels/conv/gradient_amx.h"

namespace lwm::ops {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;
constexpr int64_t kRows = kernels::kAmxConvRows, kChannels = kernels::kAmxConvChannels;

const uint16_t* Bits(const at::Tensor& x) {
  return static_cast<const uint16_t*>(x.const_data_ptr());
}

// The pixel of x under every tap at every position of dy: borders and strides are resolved once, so
// that the kernel needs neither. Positions beyond the last point to zeros.
class PixelTable {
 public:
  PixelTable(const at::Tensor& x_NCHW, const at::Tensor& dy_NCHW, int64_t side, int64_t stride,
             int64_t padding)
      : zeros_C_(static_cast<size_t>(x_NCHW.size(1)), 0),
        rows_(RoundUp(dy_NCHW.size(0) * dy_NCHW.size(2) * dy_NCHW.size(3), 32)),
        pixels_(static_cast<size_t>(side * side * rows_), zeros_C_.data()) {
    at::parallel_for(0, side * side, 1, [&](int64_t begin, int64_t end) {
      for (int64_t tap = begin; tap < end; ++tap)
        Fill(x_NCHW, dy_NCHW, tap / side - padding, tap % side - padding, stride,
             pixels_.data() + tap * rows_);
    });
  }

  int64_t rows() const { return rows_; }  // positions, rounded up to 32
  const uint16_t* const* of_tap(int64_t tap) const { return pixels_.data() + tap * rows_; }

 private:
  // (down, across) is the tap's offset from the output's position, in pixels of x.
  static void Fill(const at::Tensor& x_NCHW, const at::Tensor& dy_NCHW, int64_t down,
                   int64_t across, int64_t stride, const uint16_t** to) {
    const int64_t channels = x_NCHW.size(1), height = x_NCHW.size(2), width = x_NCHW.size(3);
    for (int64_t n = 0; n < dy_NCHW.size(0); ++n)
      for (int64_t h = 0; h < dy_NCHW.size(2); ++h) {
        const int64_t row = h * stride + down;
        const uint16_t* start = Bits(x_NCHW) + (n * height + row) * width * channels;
        for (int64_t w = 0; w < dy_NCHW.size(3); ++w, ++to) {
          const int64_t column = w * stride + across;
          if (row >= 0 && row < height && column >= 0 && column < width)
            *to = start + column * channels;
        }
      }
  }

  std::vector<uint16_t> zeros_C_;
  int64_t rows_;
  std::vector<const uint16_t*> pixels_;
};

// Packs dy [rows, O] for AmxConvGradient, once for all taps; rows beyond those of dy are zeros.
at::Tensor PackGradient(const at::Tensor& dy_RO, int64_t rows) {
  const int64_t out = dy_RO.size(1), last = (rows - 1) / kRows * kRows;  // where the last begins
  const at::Tensor blocks = at::empty({rows * out}, dy_RO.options());
  auto* to = static_cast<uint16_t*>(blocks.mutable_data_ptr());
  at::Tensor last_RO = dy_RO.slice(0, last);
  if (dy_RO.size(0) < rows) last_RO = at::constant_pad_nd(last_RO, {0, 0, 0, rows - dy_RO.size(0)});
  at::parallel_for(0, (rows + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * kRows, count = std::min(kRows, rows - first);
      kernels::AmxPackTransposedRows(first == last ? Bits(last_RO) : Bits(dy_RO) + first * out,
                                     static_cast<int>(count), static_cast<int>(out),
                                     to + first * out);
    }
  });
  return blocks;
}

void RequireInputs(const at::Tensor& x, const at::Tensor& dy, int64_t side, int64_t stride,
                   int64_t padding) {
  LWM_REQUIRE(side >= 1 && stride >= 1 && padding >= 0, "ConvWeightGradient: kernel of ", side,
              ", stride ", stride, ", padding ", padding);
  const auto size = [&](int64_t i) { return (x.size(i) + 2 * padding - side) / stride + 1; };
  LWM_REQUIRE(x.dim() == 4 && dy.dim() == 4 && x.scalar_type() == at::kBFloat16 &&
                  dy.scalar_type() == at::kBFloat16 && dy.size(0) == x.size(0) &&
                  dy.size(2) == size(2) && dy.size(3) == size(3) && dy.numel() > 0,
              "ConvWeightGradient: want bf16 x [N,I,H,W] and dy [N,O,h,w] that fit, got ",
              x.sizes(), " ", x.scalar_type(), " and ", dy.sizes(), " ", dy.scalar_type());
  LWM_REQUIRE(HasConvWeightGradient(dy.size(1)),
              "ConvWeightGradient: needs AMX and output channels in multiples of 16, got ",
              dy.size(1));
}

}  // namespace

bool HasConvWeightGradient(int64_t out_channels) {
  return out_channels % 16 == 0 && AmxAvailable();
}

at::Tensor ConvWeightGradient(const at::Tensor& x_NCHW, const at::Tensor& dy_NCHW, int64_t side,
                              int64_t stride, int64_t padding) {
  RequireInputs(x_NCHW, dy_NCHW, side, stride, padding);
  const at::Tensor x = x_NCHW.contiguous(kChannelsLast), dy = dy_NCHW.contiguous(kChannelsLast);
  const int64_t in = x.size(1), out = dy.size(1), taps = side * side;
  const PixelTable pixels(x, dy, side, stride, padding);
  const at::Tensor dy_blocks =
      PackGradient(dy.permute({0, 2, 3, 1}).reshape({-1, out}), pixels.rows());
  const at::Tensor dw_OIHW = at::empty({out, in, side, side}, x.options(), kChannelsLast);
  auto* dw = static_cast<uint16_t*>(dw_OIHW.mutable_data_ptr());
  // A task is one tap and 32 input channels: it sums over all positions alone, so that the result
  // does not depend on the number of threads.
  const int64_t blocks = (in + kChannels - 1) / kChannels;
  at::parallel_for(0, taps * blocks, 1, [&](int64_t begin, int64_t end) {
    const at::Tensor x_pairs = at::empty({kRows * kChannels}, at::kShort);
    const at::Tensor sums_OC = at::empty({RoundUp(out, 32) * kChannels}, at::kFloat);
    const kernels::AmxConvScratch scratch{static_cast<uint16_t*>(x_pairs.mutable_data_ptr()),
                                          sums_OC.mutable_data_ptr<float>()};
    for (int64_t task = begin; task < end; ++task) {
      const int64_t tap = task / blocks, first = task % blocks * kChannels;
      const kernels::AmxConvGradient gradient{static_cast<int>(pixels.rows()),
                                              static_cast<int>(out), Bits(dy_blocks),
                                              pixels.of_tap(tap)};
      kernels::AmxConvGradientOfTap(gradient, static_cast<int>(first),
                                    static_cast<int>(std::min(kChannels, in - first)), scratch,
                                    taps * in, dw + tap * in + first);
    }
  });
  return dw_OIHW;
}

}  // namespace lwm::ops
