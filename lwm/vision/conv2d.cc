#include "lwm/vision/conv2d.h"

#include <ATen/ATen.h>

#include "lwm/ops/product.h"

namespace lwm::vision {

at::ScalarType ConvArithmetic(at::ScalarType dtype) {
  return dtype == at::kBFloat16 && !ops::LibTorchMultipliesBf16() ? at::kFloat : dtype;
}

at::Tensor Conv2d(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW, const at::Tensor& bias_O,
                  int64_t stride, int64_t padding) {
  const at::ScalarType dtype = x_NCHW.scalar_type(), arithmetic = ConvArithmetic(dtype);
  if (arithmetic == dtype) return at::conv2d(x_NCHW, weight_OIHW, bias_O, stride, padding);
  const at::Tensor bias = bias_O.defined() ? bias_O.to(arithmetic) : bias_O;
  return at::conv2d(x_NCHW.to(arithmetic), weight_OIHW.to(arithmetic), bias, stride, padding)
      .to(dtype);
}

}  // namespace lwm::vision
