#include "lwm/model/decoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/generated/variable_factories.h>
#include <torch/types.h>

#include <cmath>
#include <map>

#include "lwm/base/error.h"
#include "lwm/base/no_target.h"
#include "lwm/model/layer.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/tiny_model.h"

namespace lwm::model {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

// As small as the bounds were measured for.
config::ModelConfig TinyConfig(int64_t vision_vocab_size = 0) {
  config::ModelConfig config = testing_support::TinyConfig(vision_vocab_size);
  config.vocab_size = 37;
  config.num_hidden_layers = 2;
  return config;
}
config::ModelConfig TinyVisionConfig() { return TinyConfig(19); }

// Random weights of every name, f64 leaves.
Tensors RandomWeights(const config::ModelConfig& config) {
  torch::manual_seed(7);
  Tensors weights;
  const auto add = [&](const std::vector<TensorSpec>& specs) {
    for (const TensorSpec& spec : specs) {
      at::Tensor value = at::randn(spec.shape, at::kDouble) * 0.3;
      if (spec.shape.size() == 1) value = value + 1;
      weights[spec.name] = value.requires_grad_();
    }
  };
  add(NonLayerTensorSpecs(config));
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) add(LayerTensorSpecs(config, l));
  if (config.tie_word_embeddings) weights["lm_head.weight"] = weights["model.embed_tokens.weight"];
  return weights;
}

ResidentWeights Resident(const config::ModelConfig& config, const Tensors& weights,
                         at::ScalarType dtype) {
  ResidentWeights store(config, dtype);
  store.Load([&](const TensorSpec& spec) { return weights.at(spec.name).detach(); });
  store.EnableGradients();
  return store;
}

at::Tensor NormReference(const at::Tensor& x, const at::Tensor& w, double eps) {
  return x * (x.square().mean(-1, true) + eps).rsqrt() * w;
}

at::Tensor RopeReference(const at::Tensor& x_THK, const at::Tensor& position_T, double theta) {
  const int64_t half = x_THK.size(-1) / 2;
  const at::Tensor frequency =
      at::pow(theta, -at::arange(half, at::kDouble) / static_cast<double>(half));
  const at::Tensor angle = position_T.to(at::kDouble).unsqueeze(-1) * frequency;
  const at::Tensor cos = angle.cos().unsqueeze(1), sin = angle.sin().unsqueeze(1);
  const at::Tensor a = x_THK.slice(-1, 0, half), b = x_THK.slice(-1, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, -1);
}

// One row through the textbook model in f64; allowed_TT says what each token sees.
at::Tensor HiddenReference(const config::ModelConfig& config, const Tensors& w, at::Tensor x_TD,
                           const at::Tensor& position_T, const at::Tensor& allowed_TT) {
  const int64_t group = config.num_attention_heads / config.num_key_value_heads;
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    const std::string p = Cat("model.layers.", l, ".");
    const auto weight = [&](const std::string& name) { return w.at(p + name + ".weight"); };
    const at::Tensor xn = NormReference(x_TD, weight("input_layernorm"), config.rms_norm_eps);
    const auto heads = [&](const std::string& name) {
      return at::linear(xn, weight("self_attn." + name)).view({x_TD.size(0), -1, config.head_dim});
    };
    const at::Tensor q = RopeReference(heads("q_proj"), position_T, config.rope_theta);
    const at::Tensor k =
        RopeReference(heads("k_proj"), position_T, config.rope_theta).repeat_interleave(group, 1);
    const at::Tensor v = heads("v_proj").repeat_interleave(group, 1);
    const at::Tensor scores =
        at::matmul(q.transpose(0, 1), k.permute({1, 2, 0})) / std::sqrt(double(config.head_dim));
    const at::Tensor p_HTT = scores.masked_fill(allowed_TT.logical_not(), -INFINITY).softmax(-1);
    const at::Tensor att = at::matmul(p_HTT, v.transpose(0, 1)).transpose(0, 1).flatten(1);
    const at::Tensor h = x_TD + at::linear(att, weight("self_attn.o_proj"));
    const at::Tensor hn = NormReference(h, weight("post_attention_layernorm"), config.rms_norm_eps);
    x_TD = h + at::linear(at::silu(at::linear(hn, weight("mlp.gate_proj"))) *
                              at::linear(hn, weight("mlp.up_proj")),
                          weight("mlp.down_proj"));
  }
  return NormReference(x_TD, w.at("model.norm.weight"), config.rms_norm_eps);
}

at::Tensor NllReference(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                        const at::Tensor& target_N) {
  return -at::linear(hidden_ND, head_VD)
              .log_softmax(-1)
              .gather(1, target_N.unsqueeze(1))
              .squeeze(1);
}

struct Case {
  DecoderInput input;
  DecoderTargets targets;
  at::Tensor allowed_TT;
};

// One row of two segments (5 and T - 5 tokens) with mixed modalities when the model has vision.
Case PackedCase(const config::ModelConfig& config, int64_t tokens) {
  torch::manual_seed(3);
  std::vector<int32_t> begin(static_cast<size_t>(tokens), 5);
  std::fill(begin.begin(), begin.begin() + 5, 0);
  Case c;
  c.input.view = ops::MakeSequenceView({dist::PlanZigzag(tokens, 1, begin)}, nullptr);
  const at::Tensor begin_T = at::tensor(begin, at::kInt);
  const at::Tensor index_T = at::arange(tokens, at::kInt);
  c.input.position_BT = (index_T - begin_T).unsqueeze(0);
  c.allowed_TT = index_T.unsqueeze(0)
                     .le(index_T.unsqueeze(1))
                     .logical_and(index_T.unsqueeze(0).ge(begin_T.unsqueeze(1)));
  const int64_t vocabulary = config.has_vision() ? config.vision_vocab_size : config.vocab_size;
  c.input.id_BT = at::randint(vocabulary, {1, tokens}, at::kLong);
  c.targets.id_BT = at::randint(vocabulary, {1, tokens}, at::kLong);
  c.targets.id_BT.index_put_({at::tensor(0), at::tensor(4)}, kNoTarget);
  c.targets.weight_BT = at::rand({1, tokens});
  if (config.has_vision()) {
    c.input.vision_BT = at::rand({1, tokens}).gt(0.5);
    c.targets.vision_BT = at::rand({1, tokens}).gt(0.5);
  }
  return c;
}

struct ReferenceLoss {
  at::Tensor text, vision;
};

ReferenceLoss LossReference(const config::ModelConfig& config, const Tensors& w, const Case& c) {
  const at::Tensor id_T = c.input.id_BT[0], target_T = c.targets.id_BT[0];
  at::Tensor x_TD = at::embedding(w.at("model.embed_tokens.weight"), id_T);
  at::Tensor vision_T = at::zeros_like(target_T, at::kBool);
  if (config.has_vision()) {
    x_TD = at::where(c.input.vision_BT[0].unsqueeze(1),
                     at::embedding(w.at("model.vision_embed_tokens.weight"), id_T), x_TD);
    vision_T = c.targets.vision_BT[0];
  }
  const at::Tensor h_TD = HiddenReference(config, w, x_TD, c.input.position_BT[0], c.allowed_TT);
  const auto score = [&](const at::Tensor& mine_T, const std::string& head) {
    const at::Tensor at_N = mine_T.logical_and(target_T.ne(kNoTarget)).nonzero().squeeze(1);
    const at::Tensor nll =
        NllReference(h_TD.index_select(0, at_N), w.at(head), target_T.index_select(0, at_N));
    return (nll * c.targets.weight_BT[0].index_select(0, at_N)).sum();
  };
  return {score(vision_T.logical_not(), "lm_head.weight"),
          config.has_vision() ? score(vision_T, "vision_head.weight") : at::zeros({}, at::kDouble)};
}

double RelativeError(const at::Tensor& a, const at::Tensor& reference) {
  return ((a.to(at::kDouble) - reference).abs().max() / reference.abs().max()).item<double>();
}

// Loss and every gradient against f64 autograd over the textbook model.
void ExpectMatchesReference(const config::ModelConfig& config, double loss_bound,
                            double gradient_bound, at::ScalarType dtype) {
  const Tensors w = RandomWeights(config);
  const Case c = PackedCase(config, 17);
  const ReferenceLoss reference = LossReference(config, w, c);
  (reference.text * 0.7 + reference.vision * 0.3).backward();

  ResidentWeights store = Resident(config, w, dtype);
  const DecoderLoss loss = DecoderForwardBackward(config, store, c.input, c.targets, 0.7, 0.3, {});
  EXPECT_NEAR(loss.text_loss, reference.text.item<double>(), loss_bound);
  EXPECT_NEAR(loss.vision_loss, reference.vision.item<double>(), loss_bound);
  store.Visit([&](const TensorSpec& spec, at::Tensor&, at::Tensor& gradient) {
    EXPECT_LE(RelativeError(gradient, w.at(spec.name).grad()), gradient_bound) << spec.name;
  });
  const DecoderLoss forward = DecoderForward(config, store, c.input, c.targets, {});
  EXPECT_EQ(forward.text_loss, loss.text_loss);
  EXPECT_EQ(forward.vision_loss, loss.vision_loss);
}

TEST(DecoderTest, LossAndGradientsMatchTheFloat64Model) {
  ExpectMatchesReference(TinyConfig(), 2e-5, 7e-6, at::kFloat);
}

TEST(DecoderTest, BothHeadsAndBothTablesMatchTheFloat64Model) {
  ExpectMatchesReference(TinyVisionConfig(), 2e-5, 7e-6, at::kFloat);
}

TEST(DecoderTest, TiedEmbeddingsCollectBothGradients) {
  config::ModelConfig config = TinyConfig();
  config.tie_word_embeddings = true;
  ExpectMatchesReference(config, 2e-5, 7e-6, at::kFloat);
}

TEST(DecoderTest, Bf16IsWithinItsRounding) {
  ExpectMatchesReference(TinyVisionConfig(), 0.04, 0.14, at::kBFloat16);
}

TEST(DecoderTest, GradientsAddUpOverMicroBatches) {
  const config::ModelConfig config = TinyConfig();
  const Tensors w = RandomWeights(config);
  const Case c = PackedCase(config, 11);
  ResidentWeights once = Resident(config, w, at::kFloat);
  ResidentWeights twice = Resident(config, w, at::kFloat);
  DecoderForwardBackward(config, once, c.input, c.targets, 2, 2, {});
  DecoderForwardBackward(config, twice, c.input, c.targets, 1, 1, {});
  DecoderForwardBackward(config, twice, c.input, c.targets, 1, 1, {});
  EXPECT_LE(RelativeError(twice.GradientsOfLayer(0).q_HKxD,
                          once.GradientsOfLayer(0).q_HKxD.to(at::kDouble)),
            2e-6);
}

// Slices of 7 tokens end in one of 3, which runs as Gemv.
TEST(DecoderTest, KeptActivationsGiveTheSameBits) {
  const config::ModelConfig config = TinyVisionConfig();
  const Tensors w = RandomWeights(config);
  const Case c = PackedCase(config, 17);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto element = static_cast<int64_t>(c10::elementSize(dtype));
    const int64_t layer = ActivationBytes(config, 17, 1, element, element);
    const auto gradients = [&](int64_t keep_bytes) {
      ResidentWeights store = Resident(config, w, dtype);
      DecoderForwardBackward(config, store, c.input, c.targets, 0.7, 0.3,
                             {.ffn_slice_tokens = 7, .keep_bytes = keep_bytes});
      std::vector<at::Tensor> all;
      store.Visit([&](const TensorSpec&, at::Tensor&, at::Tensor& gradient) {
        all.push_back(gradient.clone());
      });
      return all;
    };
    const std::vector<at::Tensor> recomputed = gradients(0);
    for (const int64_t keep_bytes : {layer - 1, layer, 9 * layer}) {
      const std::vector<at::Tensor> kept = gradients(keep_bytes);
      for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(kept[i].equal(recomputed[i])) << i;
    }
  }
}

// A logit that overflows makes its target impossible; where it has no weight that is no loss.
TEST(DecoderTest, AnInfiniteLossOfNoWeightDoesNotCount) {
  const config::ModelConfig config = TinyConfig();
  ResidentWeights store = Resident(config, RandomWeights(config), at::kFloat);
  Case c = PackedCase(config, 9);
  c.targets.id_BT = at::arange(9, at::kLong).unsqueeze(0);
  const at::Tensor hidden_D = DecoderHidden(config, store, c.input, {})[0][8];
  store.Visit([&](const TensorSpec& spec, at::Tensor& weight, at::Tensor&) {
    if (spec.name == "lm_head.weight") weight[8].copy_(hidden_D.sign() * -3e38);
  });
  c.targets.weight_BT[0].slice(0, 0, 8).fill_(0);
  EXPECT_EQ(DecoderForward(config, store, c.input, c.targets, {}).text_loss, INFINITY);
  c.targets.weight_BT.fill_(0);
  const DecoderLoss loss = DecoderForwardBackward(config, store, c.input, c.targets, 1, 1, {});
  EXPECT_EQ(loss.text_loss, 0);
  EXPECT_EQ(loss.nll_BT[0][8].item<float>(), INFINITY);
}

TEST(DecoderTest, VisionTargetsNeedAVisionHead) {
  const config::ModelConfig config = TinyConfig();
  ResidentWeights store = Resident(config, RandomWeights(config), at::kFloat);
  Case c = PackedCase(config, 9);
  c.targets.vision_BT = at::ones({1, 9}, at::kBool);
  EXPECT_ERROR(DecoderForward(config, store, c.input, c.targets, {}), kInvalidArgument);
}

TEST(DecoderTest, IdsOutsideTheirTableAreNamed) {
  const auto message = [](const config::ModelConfig& config, int64_t id, bool vision) {
    ResidentWeights store = Resident(config, RandomWeights(config), at::kFloat);
    Case c = PackedCase(config, 9);
    c.input.id_BT = at::zeros({1, 9}, at::kLong);
    c.input.id_BT[0][4] = id;
    c.input.vision_BT = at::zeros({1, 9}, at::kBool);
    c.input.vision_BT[0][4] = vision;
    c.targets.vision_BT = at::Tensor();
    try {
      DecoderForwardBackward(config, store, c.input, c.targets, 1, 1, {});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message(TinyVisionConfig(), 19, true),
            "token id 19 is outside the model's vision_vocab_size 19");
  EXPECT_EQ(message(TinyVisionConfig(), 18, true), "accepted");
  EXPECT_EQ(message(TinyConfig(), 37, false), "token id 37 is outside the model's vocab_size 37");
  EXPECT_EQ(message(TinyConfig(), 3, true), "vision codes need a model with vision_vocab_size > 0");
  EXPECT_EQ(message(TinyConfig(), 3, false), "accepted");  // a mask that says: all text
}

}  // namespace
}  // namespace lwm::model
