#include "lwm/train/step.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "lwm/base/error.h"
#include "lwm/testing/tiny_sharded_model.h"

namespace lwm::train {
namespace {

class StepTest : public ::testing::Test {
 protected:
  StepTest() { weights_.InitRandom({}); }

  // Masters and moments as one tensor.
  at::Tensor State() {
    std::vector<at::Tensor> parts;
    for (int64_t group = weights_.first_group(); group < weights_.end_group(); ++group)
      for (const at::Tensor& part :
           {weights_.shard(group).master_n, optimizer_.moments(group).first_n,
            optimizer_.moments(group).second_n})
        parts.push_back(part);
    return at::cat(parts);
  }

  std::unique_ptr<dist::Communicator> self_ = dist::MakeSelfCommunicator();
  dist::Mesh mesh_{*self_, {}};
  ShardedWeights weights_{testing::TinyModel(), mesh_, at::kBFloat16};
  AdamW optimizer_{weights_, {}};
};

TEST_F(StepTest, NormBeforeClippingIsReturned) {
  const at::Tensor before = State();
  weights_.shard(0).gradient_n.narrow(0, 0, 2).fill_(3);
  EXPECT_NEAR(ApplyUpdate(weights_, optimizer_, 0.1, 1), 3 * std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(optimizer_.moments(0).first_n[0].item<double>(), 0.1 / std::sqrt(2.0), 1e-7);
  EXPECT_FALSE(at::equal(State(), before));
}

TEST_F(StepTest, GradientThatIsNotFiniteChangesNothing) {
  const at::Tensor before = State();
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    weights_.ZeroGradients();
    weights_.shard(1).gradient_n[5] = bad;
    try {
      ApplyUpdate(weights_, optimizer_, 0.1, 1);
      FAIL() << "updated";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInternal);
      EXPECT_NE(std::string(error.what()).find("training diverged"), std::string::npos);
    }
  }
  EXPECT_TRUE(at::equal(State(), before));
  EXPECT_EQ(optimizer_.steps(), 0);
}

}  // namespace
}  // namespace lwm::train
