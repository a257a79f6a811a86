#include "lwm/vision/trained_conv.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/ops/conv/conv_gradient.h"
#include "lwm/ops/conv/winograd_conv.h"
#include "lwm/vision/conv2d.h"

namespace lwm::vision {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;
constexpr int64_t kSmallestWinograd = 32;  // channels

class TrainedConvFunction : public torch::autograd::Function<TrainedConvFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_NCHW,
                            const at::Tensor& weight_OIHW, const at::Tensor& bias_O, int64_t stride,
                            int64_t padding) {
    context->save_for_backward({x_NCHW, weight_OIHW});
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    return at::conv2d(x_NCHW, weight_OIHW, bias_O, stride, padding).contiguous(kChannelsLast);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x_NCHW = saved[0], &weight_OIHW = saved[1];
    const at::Tensor dy_NCHW = gradients[0].contiguous(kChannelsLast);
    const int64_t side = weight_OIHW.size(2), stride = context->saved_data["stride"].toInt(),
                  padding = context->saved_data["padding"].toInt();
    std::array<bool, 3> wanted = {context->needs_input_grad(0), context->needs_input_grad(1),
                                  context->needs_input_grad(2)};
    at::Tensor dweight_OIHW, dbias_O;
    // The weight gradient as matrix products over pixels where ops has them; the other gradients
    // stay with LibTorch.
    if (wanted[1] && RunsAsProducts(x_NCHW, weight_OIHW)) {
      dweight_OIHW = ops::ConvWeightGradient(x_NCHW, dy_NCHW, side, stride, padding);
      if (wanted[2]) dbias_O = dy_NCHW.permute({0, 2, 3, 1}).flatten(0, 2).sum(0);
      wanted[1] = wanted[2] = false;
    }
    auto [dx, dweight, dbias] = Definition(dy_NCHW, x_NCHW, weight_OIHW, stride, padding, wanted);
    if (wanted[1]) dweight_OIHW = dweight.contiguous(kChannelsLast);
    if (wanted[2]) dbias_O = dbias;
    return {dx, dweight_OIHW, dbias_O, at::Tensor(), at::Tensor()};
  }

 private:
  static bool RunsAsProducts(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW) {
    return x_NCHW.scalar_type() == at::kBFloat16 && weight_OIHW.size(2) == weight_OIHW.size(3) &&
           ops::HasConvWeightGradient(weight_OIHW.size(0));
  }

  static std::tuple<at::Tensor, at::Tensor, at::Tensor> Definition(
      const at::Tensor& dy_NCHW, const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW,
      int64_t stride, int64_t padding, const std::array<bool, 3>& wanted) {
    if (!wanted[0] && !wanted[1] && !wanted[2]) return {};
    const std::vector<int64_t> strides(2, stride), paddings(2, padding), ones(2, 1), none(2, 0),
        bias = {weight_OIHW.size(0)};
    return at::convolution_backward(dy_NCHW, x_NCHW, weight_OIHW, at::OptionalIntArrayRef(bias),
                                    strides, paddings, ones, false, none, 1, wanted);
  }
};

bool RunsAsWinograd(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW, int64_t stride,
                    int64_t padding) {
  return x_NCHW.scalar_type() == at::kFloat && weight_OIHW.size(2) == 3 &&
         weight_OIHW.size(3) == 3 && stride == 1 && padding == 1 && x_NCHW.numel() > 0 &&
         std::min(weight_OIHW.size(0), weight_OIHW.size(1)) >= kSmallestWinograd;
}

}  // namespace

at::Tensor TrainedConv(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW,
                       const at::Tensor& bias_O, int64_t stride, int64_t padding) {
  LWM_REQUIRE(weight_OIHW.scalar_type() == x_NCHW.scalar_type() &&
                  (x_NCHW.scalar_type() == at::kFloat || x_NCHW.scalar_type() == at::kBFloat16),
              "TrainedConv: want x and weights of one dtype, f32 or bf16, got ",
              x_NCHW.scalar_type(), " and ", weight_OIHW.scalar_type());
  const at::ScalarType dtype = x_NCHW.scalar_type(), arithmetic = ConvArithmetic(dtype);
  if (arithmetic != dtype)
    return TrainedConv(x_NCHW.to(arithmetic), weight_OIHW.to(arithmetic), bias_O.to(arithmetic),
                       stride, padding)
        .to(dtype);
  if (RunsAsWinograd(x_NCHW, weight_OIHW, stride, padding))
    return ops::WinogradTrainedConv2d(x_NCHW, weight_OIHW, bias_O);
  return TrainedConvFunction::apply(x_NCHW.contiguous(kChannelsLast),
                                    weight_OIHW.contiguous(kChannelsLast), bias_O, stride, padding);
}

}  // namespace lwm::vision
