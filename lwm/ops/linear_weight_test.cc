#include "lwm/ops/linear_weight.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/ops/linear.h"

namespace lwm::ops {
namespace {

TEST(LinearWeightTest, IsTheMatrixAndSharesItsMemory) {
  EXPECT_FALSE(LinearWeight().defined());
  const at::Tensor w_RC = at::randn({5, 3}).to(at::kBFloat16);
  const LinearWeight weight = w_RC;
  EXPECT_TRUE(weight.defined());
  EXPECT_EQ(weight.rows(), 5);
  EXPECT_EQ(weight.cols(), 3);
  EXPECT_EQ(weight.dtype(), at::kBFloat16);
  const LinearWeight copy = weight;  // NOLINT: that copies share is the point
  w_RC.fill_(2);
  const at::Tensor x_TC = at::ones({7, 3}).to(at::kBFloat16);
  EXPECT_TRUE(Linear(x_TC, copy).eq(6).all().item<bool>());
}

}  // namespace
}  // namespace lwm::ops
