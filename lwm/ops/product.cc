#include "lwm/ops/product.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/base/instruction_set.h"

namespace lwm::ops {
namespace {

// Sizes of a block of the result, rows x columns, and of the depth that is widened for it at a
// time. A number widened of a is used kCols times, one of b kRows times: larger blocks widen less
// often. The three f32 blocks, 9 MiB together, should stay near the processor.
constexpr int64_t kRows = 2048, kCols = 512, kDepth = 512;

void RequireShapes(const at::Tensor& a_MK, const at::Tensor& b_KN) {
  LWM_REQUIRE(a_MK.dim() == 2 && b_KN.dim() == 2 && a_MK.size(1) == b_KN.size(0) &&
                  a_MK.scalar_type() == b_KN.scalar_type(),
              "Product: want a [m,k] and b [k,n] of one dtype, got a ", a_MK.sizes(), " ",
              a_MK.scalar_type(), " b ", b_KN.sizes(), " ", b_KN.scalar_type());
}

void RequireOutput(const at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN,
                   at::ScalarType dtype) {
  RequireShapes(a_MK, b_KN);
  LWM_REQUIRE(out_MN.sizes() == at::IntArrayRef({a_MK.size(0), b_KN.size(1)}) &&
                  out_MN.scalar_type() == dtype,
              "Product: want a result [", a_MK.size(0), ",", b_KN.size(1), "] of ", dtype, ", got ",
              out_MN.sizes(), " ", out_MN.scalar_type());
}

bool Widens(const at::Tensor& a_MK) {
  return a_MK.scalar_type() == at::kBFloat16 && !LibTorchMultipliesBf16();
}

// Room for the largest f32 block of a matrix.
at::Tensor MakeRoom(int64_t rows, int64_t most_rows, int64_t cols, int64_t most_cols) {
  return at::empty({std::min(rows, most_rows) * std::min(cols, most_cols)},
                   at::TensorOptions(at::kFloat));
}

// A matrix in `room` with the memory order of `like` (by rows or by columns), so that copies read
// and write neighbouring numbers.
at::Tensor BlockLike(const at::Tensor& like, const at::Tensor& room) {
  const int64_t rows = like.size(0), cols = like.size(1);
  if (like.stride(0) == 1 && like.stride(1) != 1)
    return room.narrow(0, 0, rows * cols).view({cols, rows}).t();
  return room.narrow(0, 0, rows * cols).view({rows, cols});
}

at::Tensor Widened(const at::Tensor& x, const at::Tensor& room) {
  at::Tensor wide = BlockLike(x, room);
  return wide.copy_(x);
}

// Computes one product by blocks of the result. Each gets its whole depth in f32 before `keep`
// stores it, so that a bf16 result is rounded once.
class WidenedProduct {
 public:
  WidenedProduct(const at::Tensor& a_MK, const at::Tensor& b_KN)
      : a_MK_(a_MK),
        b_KN_(b_KN),
        m_(a_MK.size(0)),
        n_(b_KN.size(1)),
        k_(a_MK.size(1)),
        a_room_(MakeRoom(m_, kRows, k_, kDepth)),
        b_room_(MakeRoom(k_, kDepth, n_, kCols)) {}

  // sum_of(first row, rows, first column, columns) returns the f32 block to add the product to.
  template <class SumOf, class Keep>
  void Run(const SumOf& sum_of, const Keep& keep) const {
    for (int64_t row = 0; row < m_; row += kRows)
      for (int64_t col = 0; col < n_; col += kCols) {
        const int64_t rows = std::min(kRows, m_ - row), cols = std::min(kCols, n_ - col);
        at::Tensor sum = sum_of(row, rows, col, cols);
        Add(sum, a_MK_.narrow(0, row, rows), b_KN_.narrow(1, col, cols));
        keep(sum, row, rows, col, cols);
      }
  }

 private:
  void Add(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) const {
    for (int64_t at = 0; at < k_; at += kDepth) {
      const int64_t depth = std::min(kDepth, k_ - at);
      sum.addmm_(Widened(a.narrow(1, at, depth), a_room_),
                 Widened(b.narrow(0, at, depth), b_room_));
    }
  }

  const at::Tensor &a_MK_, &b_KN_;
  int64_t m_, n_, k_;
  at::Tensor a_room_, b_room_;
};

at::Tensor Block(const at::Tensor& x, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  return x.narrow(0, row, rows).narrow(1, col, cols);
}

// out = a b, or += it.
void WidenedInto(const at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN,
                 bool adds) {
  const at::NoGradGuard no_grad;
  const at::Tensor room = MakeRoom(out_MN.size(0), kRows, out_MN.size(1), kCols);
  WidenedProduct(a_MK, b_KN)
      .Run(
          [&](int64_t row, int64_t rows, int64_t col, int64_t cols) {
            at::Tensor sum = room.narrow(0, 0, rows * cols).view({rows, cols});
            return adds ? sum.copy_(Block(out_MN, row, rows, col, cols)) : sum.zero_();
          },
          [&](const at::Tensor& sum, int64_t row, int64_t rows, int64_t col, int64_t cols) {
            Block(out_MN, row, rows, col, cols).copy_(sum);
          });
}

// LibTorch's own test, by its registered operator.
}  // namespace

bool LibTorchMultipliesBf16() {
  static const bool has = Avx512Bf16Available() || AmxAvailable();
  return has;
}

at::Tensor Product(const at::Tensor& a_MK, const at::Tensor& b_KN) {
  RequireShapes(a_MK, b_KN);
  if (!Widens(a_MK)) return at::mm(a_MK, b_KN);
  const at::Tensor out_MN = at::empty({a_MK.size(0), b_KN.size(1)}, a_MK.options());
  WidenedInto(out_MN, a_MK, b_KN, false);
  return out_MN;
}

at::Tensor ProductTransposed(const at::Tensor& x_TC, const at::Tensor& w_RC) {
  return Widens(x_TC) ? Product(x_TC, w_RC.t()) : at::linear(x_TC, w_RC);
}

void ProductInto(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN) {
  RequireOutput(out_MN, a_MK, b_KN, a_MK.scalar_type());
  if (Widens(a_MK)) return WidenedInto(out_MN, a_MK, b_KN, false);
  at::mm_out(out_MN, a_MK, b_KN);
}

void AddProduct(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN) {
  RequireOutput(out_MN, a_MK, b_KN, a_MK.scalar_type());
  if (Widens(a_MK)) return WidenedInto(out_MN, a_MK, b_KN, true);
  out_MN.addmm_(a_MK, b_KN);
}

void AddWidenedProduct(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN) {
  const bool exact = out_MN.scalar_type() == at::kFloat;
  RequireOutput(out_MN, a_MK, b_KN, exact ? at::kFloat : a_MK.scalar_type());
  if (!exact) return WidenedInto(out_MN, a_MK, b_KN, true);
  const at::NoGradGuard no_grad;
  WidenedProduct(a_MK, b_KN)
      .Run([&](int64_t row, int64_t rows, int64_t col,
               int64_t cols) { return Block(out_MN, row, rows, col, cols); },
           [](const at::Tensor&, int64_t, int64_t, int64_t, int64_t) {});
}

int64_t ProductScratchBytes(int64_t m, int64_t k, int64_t n) {
  if (LibTorchMultipliesBf16()) return 0;
  const int64_t rows = std::min(m, kRows), cols = std::min(n, kCols), depth = std::min(k, kDepth);
  return static_cast<int64_t>(sizeof(float)) * (rows * cols + rows * depth + depth * cols);
}

}  // namespace lwm::ops
