#include "lwm/model/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/no_target.h"
#include "lwm/config/rope_frequencies.h"
#include "lwm/model/embedding.h"
#include "lwm/model/layer.h"
#include "lwm/ops/fused_loss.h"
#include "lwm/ops/rms_norm.h"
#include "lwm/ops/tensor_parallel.h"

namespace lwm::model {
namespace {

// Dynamic scaling depends on the longest position that any rank of the row holds.
int64_t RopeTokens(const config::ModelConfig& config, const DecoderInput& input) {
  if (config.rope_scaling.type != config::RopeScaling::Type::kDynamic) return 0;
  double tokens = input.position_BT.numel() ? input.position_BT.max().item<int32_t>() + 1 : 0;
  if (input.view.sp) input.view.sp->AllReduceMax(std::span(&tokens, 1));
  return static_cast<int64_t>(tokens);
}

LayerContext MakeContext(const config::ModelConfig& config, const DecoderInput& input,
                         const DecoderOptions& options) {
  LWM_CHECK(input.id_BT.size(0) == input.view.rows() && input.id_BT.size(1) == input.view.tokens(),
            "input of ", input.id_BT.sizes(), " does not fit its view");
  // Made once per pass: all layers rotate by the same table.
  const auto rope = config::ComputeRopeFrequencies(config, RopeTokens(config, input));
  return {config, options,
          ops::MakeRopeTable(input.position_BT, rope.inverse_frequency_R, rope.attention_factor)};
}

at::ScalarType ResidualDtype(const NonLayerWeights& outer, const DecoderOptions& options) {
  return outer.embed_VD.scalar_type() == at::kFloat ? at::kFloat : options.residual_dtype;
}

// How many layers keep all of their activations.
int64_t LayersKept(const LayerContext& context, const NonLayerWeights& outer,
                   const DecoderInput& input) {
  const auto bytes = [](at::ScalarType type) {
    return static_cast<int64_t>(c10::elementSize(type));
  };
  const int64_t layer = ActivationBytes(
      context.config, input.id_BT.numel(), context.options.tp ? context.options.tp->size() : 1,
      bytes(outer.embed_VD.scalar_type()), bytes(ResidualDtype(outer, context.options)));
  return context.options.keep_bytes / std::max(layer, int64_t{1});
}

// Hidden states after the last layer, before the final norm; `saved` gets one entry per layer.
at::Tensor RunLayers(const LayerContext& context, const WeightReader& weights,
                     const DecoderInput& input, const ops::RingAttention& ring,
                     std::vector<LayerSaved>* saved) {
  const NonLayerWeights& outer = weights.NonLayer();
  const Attend over_ring = [&](const ops::Qkv& qkv, double scale) {
    return ring.Forward(qkv, scale);
  };
  at::Tensor x_BTD =
      Embed(input.id_BT, input.vision_BT, outer).to(ResidualDtype(outer, context.options));
  // The last ones, whose backward pass comes first and frees them.
  const int64_t first_kept = context.config.num_hidden_layers - LayersKept(context, outer, input);
  for (int64_t l = 0; l < context.config.num_hidden_layers; ++l) {
    LayerSaved* keep = saved ? &saved->emplace_back() : nullptr;
    if (keep) keep->keep_all = l >= first_kept;
    const LayerHandle layer = weights.Layer(l);
    x_BTD = LayerForward(context, *layer, x_BTD, over_ring, keep);
  }
  return x_BTD;
}

// One head's share of the loss: the tokens whose target it scores.
struct HeadLoss {
  double loss = 0;
  at::Tensor at_N;   // i64, which of this rank's tokens
  at::Tensor nll_N;  // f32
  at::Tensor dx_ND;  // f32 or the compute dtype; undefined in forward only
};

// Ranks of a tp group hold the same tokens: each scores a part of them.
at::Tensor ShareOf(dist::Communicator* tp, const at::Tensor& at_N) {
  if (tp == nullptr) return at_N;
  const int64_t part = (at_N.size(0) + tp->size() - 1) / tp->size();
  const int64_t begin = std::min(at_N.size(0), part * tp->rank());
  return at_N.slice(0, begin, std::min(at_N.size(0), begin + part));
}

// dhead_VD is all-reduced in place over tp. It holds the sum of earlier micro-batches, equal on all
// ranks: only rank 0 contributes it.
HeadLoss ScoreHead(const at::Tensor& x_TD, const ops::LinearWeight& head_VD,
                   const DecoderTargets& targets, const at::Tensor& mine_T, double scale,
                   at::Tensor* dhead_VD, dist::Communicator* tp) {
  HeadLoss result;
  result.at_N = ShareOf(tp, mine_T.nonzero().squeeze(-1));
  const at::Tensor weight_N = targets.weight_BT.reshape({-1}).index_select(0, result.at_N);
  const bool shared = tp != nullptr && tp->size() > 1 && dhead_VD != nullptr;
  if (shared && tp->rank() > 0) dhead_VD->zero_();
  const ops::LossResult scored = ops::FusedLoss(
      x_TD.index_select(0, result.at_N), head_VD,
      targets.id_BT.reshape({-1}).index_select(0, result.at_N), weight_N, dhead_VD, scale);
  if (shared) {
    tp->AllReduceSum(
        std::span(dhead_VD->data_ptr<float>(), static_cast<size_t>(dhead_VD->numel())));
  }
  result.nll_N = scored.nll_T;
  result.dx_ND = scored.dx_TD;
  result.loss = scored.loss;
  return result;
}

struct Scales {
  double text, vision;
};

// Gradients of the heads, added to, and of the normalised hidden states, set.
struct ScoreGradients {
  NonLayerGradients& heads;
  at::Tensor dxn_TD;
};

// Loss of the normalised final hidden states; its gradients unless `gradients` is nullptr.
DecoderLoss ScoreTokens(const config::ModelConfig& config, const NonLayerWeights& outer,
                        const at::Tensor& xn_TD, const DecoderTargets& targets, Scales scales,
                        ScoreGradients* gradients, dist::Communicator* tp) {
  const at::Tensor target_T = targets.id_BT.reshape({-1});
  const at::Tensor has_target_T = target_T.ne(kNoTarget);
  const at::Tensor vision_T = targets.vision_BT.defined()
                                  ? targets.vision_BT.reshape({-1}).logical_and(has_target_T)
                                  : at::zeros_like(has_target_T);
  LWM_REQUIRE(config.has_vision() || !vision_T.any().item<bool>(),
              "targets of vision need a model with vision_vocab_size > 0");
  at::Tensor nll_T = at::zeros({target_T.size(0)}, at::kFloat);
  if (gradients) gradients->dxn_TD = at::zeros_like(xn_TD);
  const auto score = [&](const ops::LinearWeight& head_VD, const at::Tensor& mine_T, double scale,
                         at::Tensor* dhead_VD) {
    // Each head scores the targets of its own modality only; no token pays for both vocabularies.
    const HeadLoss part = ScoreHead(xn_TD, head_VD, targets, mine_T, scale, dhead_VD, tp);
    nll_T.index_copy_(0, part.at_N, part.nll_N);
    if (gradients) gradients->dxn_TD.index_copy_(0, part.at_N, part.dx_ND.to(xn_TD.scalar_type()));
    return part.loss;
  };
  std::array<double, 2> loss = {
      score(outer.head_VD, has_target_T.logical_and(vision_T.logical_not()), scales.text,
            gradients ? &gradients->heads.head_VD : nullptr),
      0};
  if (config.has_vision())
    loss[1] = score(outer.vision_head_VD, vision_T, scales.vision,
                    gradients ? &gradients->heads.vision_head_VD : nullptr);
  // Each tp rank scored its share of the tokens; zeros elsewhere make the sums the whole.
  if (tp && tp->size() > 1) {
    tp->AllReduceSum(std::span(loss));
    nll_T = ops::SumOverRanks(tp, nll_T);
    if (gradients) gradients->dxn_TD = ops::SumOverRanks(tp, gradients->dxn_TD);
  }
  return {loss[0], loss[1], nll_T.view(targets.id_BT.sizes())};
}

at::Tensor FinalNorm(const config::ModelConfig& config, const NonLayerWeights& outer,
                     const at::Tensor& x_BTD) {
  return ops::RmsNorm(x_BTD, outer.norm_D, config.rms_norm_eps)
      .to(outer.head_VD.dtype())
      .reshape({-1, x_BTD.size(-1)});
}

}  // namespace

at::Tensor DecoderHidden(const config::ModelConfig& config, const WeightReader& weights,
                         const DecoderInput& input, const DecoderOptions& options) {
  const at::Tensor x_BTD = RunLayers(MakeContext(config, input, options), weights, input,
                                     ops::RingAttention(input.view), /*saved=*/nullptr);
  return ops::RmsNorm(x_BTD, weights.NonLayer().norm_D, config.rms_norm_eps);
}

DecoderLoss DecoderForward(const config::ModelConfig& config, const WeightReader& weights,
                           const DecoderInput& input, const DecoderTargets& targets,
                           const DecoderOptions& options) {
  const at::Tensor x_BTD = RunLayers(MakeContext(config, input, options), weights, input,
                                     ops::RingAttention(input.view), /*saved=*/nullptr);
  const NonLayerWeights& outer = weights.NonLayer();
  return ScoreTokens(config, outer, FinalNorm(config, outer, x_BTD), targets, {1, 1},
                     /*gradients=*/nullptr, options.tp);
}

DecoderLoss DecoderForwardBackward(const config::ModelConfig& config, WeightStore& weights,
                                   const DecoderInput& input, const DecoderTargets& targets,
                                   double text_scale, double vision_scale,
                                   const DecoderOptions& options) {
  const LayerContext context = MakeContext(config, input, options);
  // Forward keeps per layer its input and attention's result; the loss gives the gradient of the
  // last hidden states; backward then goes down the layers and frees each layer's saved values. The
  // embedding, which forward used first, gets its gradient last.
  std::vector<LayerSaved> saved;
  const ops::RingAttention ring(input.view);
  const at::Tensor x_BTD = RunLayers(context, weights, input, ring, &saved);

  const NonLayerWeights& outer = weights.NonLayer();
  NonLayerGradients& outer_gradients = weights.GradientsOfNonLayer();
  ScoreGradients score{outer_gradients, {}};
  const DecoderLoss loss = ScoreTokens(config, outer, FinalNorm(config, outer, x_BTD), targets,
                                       {text_scale, vision_scale}, &score, options.tp);
  at::Tensor dx_BTD =
      ops::RmsNormBackward(score.dxn_TD.to(x_BTD.scalar_type()).view(x_BTD.sizes()), x_BTD,
                           outer.norm_D, config.rms_norm_eps, outer_gradients.norm_D);
  for (int64_t l = config.num_hidden_layers - 1; l >= 0; --l) {
    const LayerHandle layer = weights.Layer(l);
    LayerSaved values = std::move(saved.back());
    saved.pop_back();
    dx_BTD = LayerBackward(context, *layer, ring, std::move(values), dx_BTD,
                           weights.GradientsOfLayer(l));
    weights.FinishLayerGradients(l);
  }
  EmbedBackward(input.id_BT, input.vision_BT, dx_BTD, outer_gradients);
  return loss;
}

}  // namespace lwm::model
