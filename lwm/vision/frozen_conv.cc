#include "lwm/vision/frozen_conv.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/cpu/Utils.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/vision/conv2d.h"

namespace lwm::vision {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;
constexpr int64_t kSmallestWinograd = 32;  // channels

// The 3x3 kernel seen from the small image: between pixels p - 1 and p lie output rows 2p - 1 and
// 2p, and each is a sum over those two pixels only. Columns likewise. [4 O,I,2,2]. A small pixel
// then costs 4 * 4 products, not 4 * 9. Folded in f64 and rounded once.
at::Tensor FoldDoubling(const at::Tensor& weight_OIHW) {
  const auto f64 = at::TensorOptions(at::kDouble);
  const at::Tensor odd = at::tensor({1.0, 1.0, 0.0, 0.0, 0.0, 1.0}, f64).view({2, 3});
  const at::Tensor even = at::tensor({1.0, 0.0, 0.0, 0.0, 1.0, 1.0}, f64).view({2, 3});
  std::vector<at::Tensor> phases;
  for (const at::Tensor& rows : {odd, even})
    for (const at::Tensor& columns : {odd, even})
      phases.push_back(at::matmul(rows, at::matmul(weight_OIHW.to(at::kDouble), columns.t())));
  return at::cat(phases);
}

// [N,4 O,H + 1,W + 1] from the folded kernel to [N,O,2 H,2 W]: pixel (p, q) holds the square of
// outputs from (2p - 1, 2q - 1) on; the outermost are cut.
at::Tensor SpreadPhases(const at::Tensor& phases_NCHW) {
  const int64_t images = phases_NCHW.size(0), channels = phases_NCHW.size(1) / 4;
  const int64_t height = 2 * (phases_NCHW.size(2) - 1), width = 2 * (phases_NCHW.size(3) - 1);
  const at::Tensor y_NCHW =
      at::empty({images, channels, height, width}, phases_NCHW.options(), kChannelsLast);
  const auto bytes = static_cast<int64_t>(phases_NCHW.element_size()) * channels;
  const auto* from = static_cast<const char*>(phases_NCHW.const_data_ptr());
  auto* to = static_cast<char*>(y_NCHW.mutable_data_ptr());
  at::parallel_for(0, images * height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i % height + 1;
      const int64_t source = (i / height * (height / 2 + 1) + row / 2) * (width / 2 + 1);
      for (int64_t column = 1; column <= width; ++column) {
        const int64_t phase = row % 2 * 2 + column % 2;
        std::memcpy(to + (i * width + column - 1) * bytes,
                    from + ((source + column / 2) * 4 + phase) * bytes, static_cast<size_t>(bytes));
      }
    }
  });
  return y_NCHW;
}

// oneDNN's convolution that adds to its output, as LibTorch's own compiler uses it; there is no
// at:: function for it.
class AddingConvolution {
 public:
  AddingConvolution()
      : operator_(c10::Dispatcher::singleton().findSchema(
            {"mkldnn::_convolution_pointwise_", "binary"})) {}

  bool Runs(at::ScalarType dtype) const {
    return operator_ && at::globalContext().userEnabledMkldnn() &&
           (dtype == at::kFloat || at::cpu::is_avx512_vnni_supported());
  }

  void Run(const at::Tensor& y_NCHW, const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW,
           const at::Tensor& bias_O) const {
    const int64_t padding = weight_OIHW.size(2) / 2;
    const std::vector<int64_t> border = {padding, padding}, ones = {1, 1};
    torch::jit::Stack stack;
    torch::jit::push(stack, y_NCHW, x_NCHW, weight_OIHW, bias_O, border, ones, ones, int64_t{1},
                     "add", at::Scalar(1.0), c10::IValue(), c10::List<std::optional<at::Scalar>>(),
                     c10::IValue());
    operator_->callBoxed(stack);
  }

 private:
  std::optional<c10::OperatorHandle> operator_;
};

const AddingConvolution& TheAddingConvolution() {
  static const AddingConvolution convolution;
  return convolution;
}

}  // namespace

FrozenConv::FrozenConv(ConvKind kind, const at::Tensor& weight_OIHW, const at::Tensor& bias_O,
                       at::ScalarType dtype)
    : kind_(kind), dtype_(dtype), arithmetic_(ConvArithmetic(dtype)) {
  const bool is_wide = std::min(weight_OIHW.size(0), weight_OIHW.size(1)) >= kSmallestWinograd;
  if (dtype == at::kBFloat16 && ops::Winograd4IsFaster() && is_wide && kind != ConvKind::kHalve &&
      weight_OIHW.size(2) == 3) {
    winograd4_ = ops::Winograd4Conv2d(weight_OIHW, bias_O, kind == ConvKind::kDouble);
    arithmetic_ = dtype;  // it reads and writes bf16 itself
    return;
  }
  if (kind == ConvKind::kSame && weight_OIHW.size(2) == 3 && arithmetic_ == at::kFloat && is_wide) {
    winograd_ = ops::WinogradConv2d(weight_OIHW.to(arithmetic_), bias_O.to(arithmetic_));
    return;
  }
  const bool doubles = kind == ConvKind::kDouble;
  weight_OIHW_ =
      (doubles ? FoldDoubling(weight_OIHW) : weight_OIHW).to(arithmetic_).contiguous(kChannelsLast);
  bias_O_ = (doubles ? bias_O.repeat({4}) : bias_O).to(arithmetic_);
}

at::Tensor FrozenConv::Run(const at::Tensor& x_NCHW) const {
  if (arithmetic_ == dtype_) return Compute(x_NCHW);
  return Compute(x_NCHW.to(arithmetic_)).to(dtype_);
}

at::Tensor FrozenConv::Compute(const at::Tensor& x_NCHW) const {
  if (winograd_.defined()) return winograd_.Run(x_NCHW);
  if (winograd4_.defined()) return winograd4_.Run(x_NCHW);
  switch (kind_) {
    case ConvKind::kSame:
      return at::conv2d(x_NCHW, weight_OIHW_, bias_O_, 1, weight_OIHW_.size(2) / 2);
    case ConvKind::kHalve:
      // conv2d pads both sides alike; this one wants the bottom and right only.
      return at::conv2d(at::constant_pad_nd(x_NCHW, {0, 1, 0, 1}), weight_OIHW_, bias_O_, 2);
    case ConvKind::kDouble:
      return SpreadPhases(
          at::conv2d(x_NCHW, weight_OIHW_, bias_O_, 1, 1).contiguous(kChannelsLast));
  }
  throw Error(ErrorCode::kInternal, "unknown kind of convolution");
}

void FrozenConv::AddTo(at::Tensor& y_NCHW, const at::Tensor& x_NCHW) const {
  LWM_CHECK(kind_ == ConvKind::kSame, "only plain convolutions add to another image");
  if (arithmetic_ != dtype_) {
    y_NCHW.copy_(y_NCHW.to(arithmetic_).add_(Compute(x_NCHW.to(arithmetic_))));
    return;
  }
  if (winograd_.defined()) return winograd_.AddTo(y_NCHW, x_NCHW);
  if (winograd4_.defined()) return winograd4_.AddTo(y_NCHW, x_NCHW);
  if (!TheAddingConvolution().Runs(x_NCHW.scalar_type())) {
    y_NCHW.add_(Run(x_NCHW));
    return;
  }
  TheAddingConvolution().Run(y_NCHW, x_NCHW, weight_OIHW_, bias_O_);
}

}  // namespace lwm::vision
