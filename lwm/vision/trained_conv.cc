#include "lwm/vision/trained_conv.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <cstdint>
#include <vector>

#include "lwm/base/error.h"

namespace lwm::vision {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

// [O,I,area] to [O,area,I], elements as their bits.
template <class Bits>
void SwapInner(const Bits* from, int64_t outer, int64_t in, int64_t area, Bits* to) {
  at::parallel_for(0, outer, 8, [=](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      const Bits* source = from + o * in * area;
      Bits* target = to + o * in * area;
      for (int64_t k = 0; k < area; ++k)
        for (int64_t i = 0; i < in; ++i) target[k * in + i] = source[i * area + k];
    }
  });
}

at::Tensor ChannelsLastCopy(const at::Tensor& weight_OIHW) {
  const at::Tensor weight = weight_OIHW.contiguous();
  const at::Tensor copy = at::empty_like(weight, weight.options(), kChannelsLast);
  const int64_t area = weight.size(2) * weight.size(3);
  if (weight.element_size() == 2) {
    SwapInner(static_cast<const uint16_t*>(weight.const_data_ptr()), weight.size(0), weight.size(1),
              area, static_cast<uint16_t*>(copy.mutable_data_ptr()));
  } else {
    SwapInner(static_cast<const uint32_t*>(weight.const_data_ptr()), weight.size(0), weight.size(1),
              area, static_cast<uint32_t*>(copy.mutable_data_ptr()));
  }
  return copy;
}

class TrainedConvFunction : public torch::autograd::Function<TrainedConvFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_NCHW,
                            const at::Tensor& weight_OIHW, const at::Tensor& bias_O, int64_t stride,
                            int64_t padding) {
    const at::Tensor copy_OIHW = ChannelsLastCopy(weight_OIHW);
    context->save_for_backward({x_NCHW, copy_OIHW});
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    return at::conv2d(x_NCHW, copy_OIHW, bias_O, stride, padding).contiguous(kChannelsLast);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const std::vector<int64_t> stride(2, context->saved_data["stride"].toInt());
    const std::vector<int64_t> padding(2, context->saved_data["padding"].toInt());
    const std::vector<int64_t> none = {0, 0}, ones = {1, 1}, bias = {saved[1].size(0)};
    const auto [dx_NCHW, dweight_OIHW, dbias_O] = at::convolution_backward(
        gradients[0].contiguous(kChannelsLast), saved[0], saved[1], at::OptionalIntArrayRef(bias),
        stride, padding, ones, false, none, 1,
        std::array<bool, 3>{context->needs_input_grad(0), context->needs_input_grad(1),
                            context->needs_input_grad(2)});
    return {dx_NCHW, dweight_OIHW.defined() ? dweight_OIHW.contiguous() : dweight_OIHW, dbias_O,
            at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor TrainedConv(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW,
                       const at::Tensor& bias_O, int64_t stride, int64_t padding) {
  LWM_REQUIRE(weight_OIHW.scalar_type() == x_NCHW.scalar_type() &&
                  (x_NCHW.scalar_type() == at::kFloat || x_NCHW.scalar_type() == at::kBFloat16),
              "TrainedConv: want x and weights of one dtype, f32 or bf16, got ",
              x_NCHW.scalar_type(), " and ", weight_OIHW.scalar_type());
  return TrainedConvFunction::apply(x_NCHW, weight_OIHW, bias_O, stride, padding);
}

}  // namespace lwm::vision
