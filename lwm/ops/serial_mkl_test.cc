#include "lwm/ops/serial_mkl.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

namespace lwm::ops {
namespace {

// 16 products, shared among threads.
at::Tensor Products(int threads, const at::Tensor& a_BMK, const at::Tensor& b_BKN) {
  const int before = at::get_num_threads();
  at::set_num_threads(threads);
  const at::Tensor out_BMN = at::empty({a_BMK.size(0), a_BMK.size(1), b_BKN.size(2)});
  at::parallel_for(0, a_BMK.size(0), 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    const SerialMkl serial;
    at::Tensor some = out_BMN.slice(0, begin, end);
    at::bmm_out(some, a_BMK.slice(0, begin, end), b_BKN.slice(0, begin, end));
  });
  at::set_num_threads(before);
  return out_BMN;
}

TEST(SerialMklTest, ProductsDoNotDependOnTheNumberOfThreads) {
  for (const int64_t rows : {342, 700, 1001}) {
    at::manual_seed(1);
    const at::Tensor a = at::randn({16, rows, 40}), b = at::randn({16, 40, 24});
    const at::Tensor one = Products(1, a, b);
    for (const int threads : {2, 3, 7}) EXPECT_TRUE(Products(threads, a, b).equal(one)) << threads;
  }
}

}  // namespace
}  // namespace lwm::ops
