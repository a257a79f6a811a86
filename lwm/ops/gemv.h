#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lwm/ops/linear_weight.h"

namespace lwm::ops {

// Up to this many rows Gemv is at least as fast as LibTorch's matmul (measured on Sapphire Rapids:
// bf16 34 GB/s of weights against 26 at one row and 31 against 27 at four).
inline constexpr int64_t kGemvRows = 4;

// y = x w^T for the few rows of a decoding step, at the speed of the memory that w comes from.
//
//   x_TC       in  f32 or bf16 [T,C], contiguous; meant for T <= kGemvRows, right for any
//   w_RC       in  same dtype [R,C], contiguous
//   out_dtype  in  f32 (the sums as they are) or bf16
//   return y_TR
//
// Accuracy: as kernels/gemv.h. The same bits for any number of threads and for any other rows in
// the batch. Threads: over rows of w. Throws Error(kInvalidArgument) on other shapes, dtypes or
// layouts.
at::Tensor Gemv(const at::Tensor& x_TC, const LinearWeight& w_RC, at::ScalarType out_dtype);

// The same for several matrices that read one x, with one wait for all threads instead of several.
std::vector<at::Tensor> GemvEach(const at::Tensor& x_TC, const std::vector<LinearWeight>& w_RC,
                                 at::ScalarType out_dtype);

}  // namespace lwm::ops
