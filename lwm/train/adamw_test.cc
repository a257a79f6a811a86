#include "lwm/train/adamw.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lwm/testing/tiny_sharded_model.h"

namespace lwm::train {
namespace {

using testing::Alone;
using testing::TinyModel;

// The definition, f64, for the weights of one group.
struct Reference {
  at::Tensor p, m, v;
  int64_t t = 0;
  explicit Reference(const at::Tensor& start)
      : p(start.to(at::kDouble, false, true)), m(at::zeros_like(p)), v(at::zeros_like(p)) {}

  void Step(const at::Tensor& gradient, const AdamWOptions& o, const at::Tensor& decay, double lr) {
    const at::Tensor g = gradient.to(at::kDouble);
    ++t;
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const at::Tensor m_hat = m / (1 - std::pow(o.beta1, t)), v_hat = v / (1 - std::pow(o.beta2, t));
    p = p - lr * (m_hat / (v_hat.sqrt() + o.eps) + decay * p);
  }
};

// 1 where a piece is whose name holds `part`, else 0.
at::Tensor MaskOf(const GroupShard& shard, const char* part) {
  const at::Tensor mask = at::zeros_like(shard.master_n, at::kDouble);
  for (const ShardPiece& piece : shard.pieces)
    if (piece.spec.name.find(part) != std::string::npos)
      mask.narrow(0, piece.offset, piece.slice.size()).fill_(1);
  return mask;
}

void ExpectFollowsReference(const AdamWOptions& options, int64_t group, const at::Tensor& decay,
                            double factor) {
  Alone alone;
  ShardedWeights weights(TinyModel(), alone.mesh, at::kBFloat16);
  weights.InitRandom({.seed = 1, .table_std = 1, .matrix_std = 1});
  AdamW optimizer(weights, options);
  const GroupShard& shard = weights.shard(group);
  Reference reference(shard.master_n);
  const at::Tensor direction = at::sin(at::arange(shard.master_n.numel(), at::kFloat));
  for (int step = 0; step < 6; ++step) {
    const at::Tensor gradient = direction * (1 + step) * (step % 2 ? -0.3 : 1);
    shard.gradient_n.copy_(gradient);
    const double lr = 0.01 * step;
    optimizer.Step(lr, factor);
    reference.Step(gradient * factor, options, decay, lr);
    EXPECT_EQ(shard.gradient_n.abs().max().item<float>(), 0);
  }
  const at::Tensor difference = (shard.master_n - reference.p) * MaskOf(shard, "");
  const double error = difference.abs().max().item<double>();
  EXPECT_LT(error, 1e-6) << error;
  EXPECT_EQ(optimizer.steps(), 6);
}

TEST(AdamWTest, FollowsTheDefinition) {
  Alone alone;
  ShardedWeights weights(TinyModel(), alone.mesh, at::kFloat);
  const at::Tensor all = at::full_like(weights.shard(0).master_n, 0.1, at::kDouble);
  ExpectFollowsReference({}, 0, all, 1);
  ExpectFollowsReference({}, 0, all, 0.25);
}

TEST(AdamWTest, NamedTensorsAreNotDecayed) {
  Alone alone;
  ShardedWeights weights(TinyModel(), alone.mesh, at::kFloat);
  const AdamWOptions options = {.weight_decay = 0.2, .no_decay = {"norm", "embed"}};
  const at::Tensor norms = MaskOf(weights.shard(1), "norm");
  ExpectFollowsReference(options, 1, 0.2 * (1 - norms), 1);
  const GroupShard& outer = weights.shard(-1);
  const at::Tensor kept = MaskOf(outer, "embed") + MaskOf(outer, "norm");
  ExpectFollowsReference(options, -1, 0.2 * (1 - kept), 1);
}

TEST(AdamWTest, FirstStepAtRateZeroFillsMomentsOnly) {
  Alone alone;
  ShardedWeights weights(TinyModel(), alone.mesh, at::kFloat);
  weights.InitRandom({.seed = 1});
  AdamW optimizer(weights, {});
  const at::Tensor before = weights.shard(0).master_n.clone();
  weights.shard(0).gradient_n.fill_(2);
  optimizer.Step(0, 1);
  EXPECT_TRUE(at::equal(weights.shard(0).master_n, before));
  EXPECT_TRUE(at::allclose(optimizer.moments(0).first_n, at::full({1}, 0.2f)));
  EXPECT_TRUE(at::allclose(optimizer.moments(0).second_n, at::full({1}, 0.2f)));
}

TEST(AdamWTest, AnyNumberOfThreadsGivesTheSameBits) {
  config::ModelConfig config = TinyModel();
  config.vocab_size = 12007;
  const auto train = [&](int threads) {
    at::set_num_threads(threads);
    Alone alone;
    ShardedWeights weights(config, alone.mesh, at::kBFloat16);
    weights.InitRandom({.seed = 1});
    AdamW optimizer(weights, {.no_decay = {"norm"}});
    const GroupShard& shard = weights.shard(-1);
    for (int step = 0; step < 3; ++step) {
      shard.gradient_n.copy_(at::sin(at::arange(shard.master_n.numel(), at::kFloat) + step));
      optimizer.Step(1e-3, 0.3);
    }
    EXPECT_TRUE(at::equal(shard.compute_n, shard.master_n.to(at::kBFloat16)));
    return shard.master_n.clone();
  };
  const int threads = at::get_num_threads();
  const at::Tensor one = train(1);
  EXPECT_TRUE(at::equal(train(3), one));
  at::set_num_threads(threads);
}

TEST(AdamWTest, ComputeWeightsAreNewAfterAStep) {
  Alone alone;
  ShardedWeights weights(TinyModel(), alone.mesh, at::kBFloat16);
  weights.InitRandom({.seed = 1});
  AdamW optimizer(weights, {});
  weights.GradientsOfLayer(1).q_HKxD.fill_(1);
  optimizer.Step(1, 1);
  EXPECT_LT(weights.Layer(1)->q_HKxD.dense().max().item<float>(), -0.8);
}

}  // namespace
}  // namespace lwm::train
