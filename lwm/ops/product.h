#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::ops {

// Products of two matrices of one dtype, f32 or bf16, summed in f32. LibTorch computes them, except
// for bf16 on processors without AVX512-BF16 or AMX: there blocks of both sides are widened to f32,
// and the complete sums rounded once.
//
// Any strides; fast when rows or columns are contiguous. Not differentiable. Throw
// Error(kInvalidArgument) when shapes or dtypes do not match.

// Whether the processor multiplies bf16 and LWM_MAX_ISA allows it (AVX512-BF16 or AMX): then
// LibTorch does so, in products and convolutions. With AVX-512 alone oneDNN would emulate it,
// slower than f32; and the generator of those products is one that LibTorch's oneDNN and Debian's
// cannot both have (cmake/dependencies.cmake).
bool LibTorchMultipliesBf16();

// a_MK b_KN, in their dtype.
at::Tensor Product(const at::Tensor& a_MK, const at::Tensor& b_KN);

// x_TC w_RC^T, in their dtype.
at::Tensor ProductTransposed(const at::Tensor& x_TC, const at::Tensor& w_RC);

// out_MN = a_MK b_KN. `out` has their dtype and overlaps neither.
void ProductInto(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN);

// out_MN += a_MK b_KN; in bf16 the new sum is rounded once.
void AddProduct(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN);

// out_MN += a_MK b_KN in blocks of f32 whatever the processor has: slower where LibTorch multiplies
// bf16. `out` may be f32 too; nothing is rounded then.
void AddWidenedProduct(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN);

// Peak scratch of a widened product of bf16 [m,k] and [k,n], in bytes: at most 9 MiB; 0 where
// LibTorch multiplies bf16.
int64_t ProductScratchBytes(int64_t m, int64_t k, int64_t n);

}  // namespace lwm::ops
