#include "lwm/train/sharded_weights.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "lwm/base/error.h"
#include "lwm/testing/tiny_sharded_model.h"

namespace lwm::train {
namespace {

using testing::Alone;
using testing::TinyModel;

std::map<std::string, at::Tensor> Whole(ShardedWeights& weights) {
  std::map<std::string, at::Tensor> tensors;
  weights.VisitWhole([&](const model::TensorSpec& spec, const at::Tensor& whole) {
    tensors[spec.name] = whole.clone();
  });
  return tensors;
}

TEST(ShardedWeightsTest, RandomWeightsHaveTheAskedForSpread) {
  config::ModelConfig config = TinyModel(1);
  config.vocab_size = 4000;
  config.hidden_size = 64;
  config.intermediate_size = 1000;
  Alone alone;
  ShardedWeights weights(config, alone.mesh, at::kFloat);
  weights.InitRandom({.seed = 3, .table_std = 0.5, .matrix_std = 0.1, .residual_scale = 0.25});
  auto whole = Whole(weights);
  const auto expect_normal = [&](const char* name, double std) {
    const at::Tensor x = whole.at(name).to(at::kDouble).flatten();
    const double n = static_cast<double>(x.numel());
    EXPECT_NEAR(x.mean().item<double>(), 0, 4 * std / std::sqrt(n)) << name;
    EXPECT_NEAR(x.std().item<double>(), std, 4 * std / std::sqrt(2 * n)) << name;
    EXPECT_NEAR(x.pow(4).mean().item<double>() / std::pow(std, 4), 3, 4 * std::sqrt(96 / n))
        << name;
  };
  expect_normal("model.embed_tokens.weight", 0.5);
  expect_normal("lm_head.weight", 0.5);
  expect_normal("model.layers.0.mlp.gate_proj.weight", 0.1);
  expect_normal("model.layers.0.mlp.down_proj.weight", 0.025);
  EXPECT_TRUE(whole.at("model.norm.weight").eq(1).all().item<bool>());
  EXPECT_TRUE(whole.at("model.layers.0.input_layernorm.weight").eq(1).all().item<bool>());
  EXPECT_FALSE(at::equal(whole.at("lm_head.weight"), whole.at("model.embed_tokens.weight")));
}

TEST(ShardedWeightsTest, ComputeWeightsFollowTheMasters) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Alone alone;
    ShardedWeights weights(TinyModel(), alone.mesh, dtype);
    testing::WholeModel source(TinyModel(), 5);
    weights.Load(std::ref(source));
    const auto whole = Whole(weights);
    const model::LayerHandle layer = weights.Layer(1);
    EXPECT_TRUE(at::equal(layer->ffn.down_DF.dense(),
                          whole.at("model.layers.1.mlp.down_proj.weight").to(dtype)));
    EXPECT_TRUE(at::equal(weights.NonLayer().vision_head_VD.dense(),
                          whole.at("vision_head.weight").to(dtype)));
  }
}

TEST(ShardedWeightsTest, TiedHeadIsTheEmbedding) {
  Alone alone;
  ShardedWeights weights(TinyModel(1, false, true), alone.mesh, at::kBFloat16);
  EXPECT_EQ(weights.NonLayer().head_VD.dense().data_ptr(), weights.NonLayer().embed_VD.data_ptr());
  EXPECT_EQ(weights.GradientsOfNonLayer().head_VD.data_ptr(),
            weights.GradientsOfNonLayer().embed_VD.data_ptr());
  EXPECT_FALSE(Whole(weights).contains("lm_head.weight"));
}

TEST(ShardedWeightsTest, GradientNormCountsEveryWeightOnce) {
  Alone alone;
  ShardedWeights weights(TinyModel(), alone.mesh, at::kBFloat16);
  double sum = 0, value = 1;
  const auto fill = [&](const std::vector<at::Tensor*>& gradients) {
    for (at::Tensor* gradient : gradients) {
      gradient->add_(value);
      sum += value * value * static_cast<double>(gradient->numel());
      value += 0.5;
    }
  };
  fill(model::TensorsOf(weights.config(), weights.GradientsOfNonLayer()));
  for (const int64_t layer : {1, 0}) {
    fill(model::TensorsOf(weights.GradientsOfLayer(layer)));
    weights.FinishLayerGradients(layer);
  }
  weights.FinishGradients();
  EXPECT_NEAR(weights.GradientNorm(), std::sqrt(sum), 1e-12 * std::sqrt(sum));
  weights.ZeroGradients();
  EXPECT_EQ(weights.GradientNorm(), 0);
}

TEST(ShardedWeightsTest, GradientNormIsTheSameForAnyNumberOfThreads) {
  config::ModelConfig config = TinyModel();
  config.vocab_size = 30001;
  Alone alone;
  ShardedWeights weights(config, alone.mesh, at::kFloat);
  at::Tensor& gradient = weights.GradientsOfNonLayer().embed_VD;
  gradient.copy_(at::sin(at::arange(gradient.numel(), at::kFloat)).view(gradient.sizes()));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const double norm = weights.GradientNorm();
  EXPECT_NEAR(norm, gradient.to(at::kDouble).norm().item<double>(), 1e-12 * norm);
  at::set_num_threads(3);
  EXPECT_EQ(weights.GradientNorm(), norm);
  at::set_num_threads(threads);
}

TEST(ShardedWeightsTest, GradientNormShowsNaN) {
  Alone alone;
  ShardedWeights weights(TinyModel(), alone.mesh, at::kFloat);
  weights.GradientsOfLayer(0).q_HKxD.flatten()[3] = std::numeric_limits<float>::quiet_NaN();
  weights.FinishLayerGradients(0);
  weights.FinishGradients();
  EXPECT_TRUE(std::isnan(weights.GradientNorm()));
}

TEST(ShardedWeightsTest, LoadKeepsTensorsThatTheSourceLacks) {
  Alone alone;
  ShardedWeights weights(TinyModel(), alone.mesh, at::kFloat);
  weights.InitRandom({.seed = 8});
  const at::Tensor before = Whole(weights).at("vision_head.weight");
  weights.Load([](const model::TensorSpec& spec) {
    return spec.name.starts_with("vision") ? at::Tensor() : at::ones(spec.shape, at::kHalf);
  });
  EXPECT_TRUE(at::equal(Whole(weights).at("vision_head.weight"), before));
  EXPECT_TRUE(Whole(weights).at("lm_head.weight").eq(1).all().item<bool>());
}

TEST(ShardedWeightsTest, LoadRefusesWrongShapesAndNaN) {
  Alone alone;
  ShardedWeights weights(TinyModel(), alone.mesh, at::kFloat);
  const auto message = [&](const std::function<at::Tensor(const model::TensorSpec&)>& read) {
    try {
      weights.Load(read);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message([](const model::TensorSpec&) {
              return at::ones({2, 3});
            }),
            "model.embed_tokens.weight has shape [2, 3], the model wants [11, 10]");
  EXPECT_EQ(message([](const model::TensorSpec& spec) {
              return at::full(spec.shape, spec.name.ends_with("v_proj.weight") ? NAN : 1,
                              at::kFloat);
            }),
            "model.layers.0.self_attn.v_proj.weight holds values that are not finite (NaN or Inf)");
}

TEST(ShardedWeightsTest, ClipFactorBringsTheNormDown) {
  EXPECT_EQ(ClipFactor(0.5, 1), 1);
  EXPECT_EQ(ClipFactor(4, 1), 0.25);
  EXPECT_EQ(ClipFactor(4, 0), 1);
}

}  // namespace
}  // namespace lwm::train
