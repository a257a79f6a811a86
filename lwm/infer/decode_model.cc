#include "lwm/infer/decode_model.h"

#include <ATen/ATen.h>

#include <cmath>

#include "lwm/base/error.h"
#include "lwm/infer/token_batch.h"
#include "lwm/model/embedding.h"
#include "lwm/ops/cached_attention.h"
#include "lwm/ops/feed_forward.h"
#include "lwm/ops/gemv.h"
#include "lwm/ops/linear.h"
#include "lwm/ops/rms_norm.h"
#include "lwm/ops/rope.h"

namespace lwm::infer {
namespace {

// Each of the matrices times the same x.
std::vector<at::Tensor> ProjectEach(const at::Tensor& x_TC, const std::vector<at::Tensor>& w_RC) {
  if (x_TC.size(0) <= ops::kGemvRows) return ops::GemvEach(x_TC, w_RC, x_TC.scalar_type());
  std::vector<at::Tensor> y_TR;
  for (const at::Tensor& w : w_RC) y_TR.push_back(ops::Linear(x_TC, w));
  return y_TR;
}

at::Tensor Project(const at::Tensor& x_TC, const at::Tensor& w_RC) {
  return ProjectEach(x_TC, {w_RC}).front();
}

at::Tensor FeedForward(const at::Tensor& x_TD, const ops::FeedForwardWeights& w) {
  if (x_TD.size(0) > ops::kGemvRows) return ops::FeedForward(x_TD, w, kPrefillChunkTokens);
  const auto gate_up_TF = ops::GemvEach(x_TD, {w.gate_FD, w.up_FD}, at::kFloat);
  const at::Tensor inner_TF = at::silu(gate_up_TF[0]).mul_(gate_up_TF[1]).to(x_TD.scalar_type());
  return ops::Gemv(inner_TF, w.down_DF, x_TD.scalar_type());
}

// Position of each new token in its own row, i64 [B,T]; left padding has position 0.
at::Tensor Positions(const KvCache& cache, int64_t new_tokens) {
  const at::Tensor index_1T =
      at::arange(cache.tokens(), cache.tokens() + new_tokens, at::kLong).unsqueeze(0);
  if (!cache.begin_B().defined()) return index_1T.expand({cache.rows(), new_tokens});
  return (index_1T - cache.begin_B().unsqueeze(1)).clamp_min(0);
}

NewTokens Slice(const NewTokens& tokens, int64_t begin, int64_t end) {
  return {tokens.id_BT.slice(1, begin, end),
          tokens.vision_BT.defined() ? tokens.vision_BT.slice(1, begin, end) : at::Tensor()};
}

void RequireHead(const config::ModelConfig& config, Head head) {
  LWM_REQUIRE(config.has_vision() || head == Head::kText,
              "vision tokens need a model with vision_vocab_size > 0");
}

}  // namespace

at::ScalarType DecodeModel::dtype() const { return weights_.Outer().head_VD.scalar_type(); }

void DecodeModel::Check(const NewTokens& tokens, const KvCache& cache) const {
  LWM_CHECK(tokens.id_BT.dim() == 2 && tokens.id_BT.size(0) == cache.rows() &&
                tokens.id_BT.size(1) >= 1 && tokens.id_BT.scalar_type() == at::kLong,
            "new tokens of ", tokens.id_BT.sizes(), " for a cache of ", cache.rows(), " rows");
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted,
                 cache.tokens() + tokens.id_BT.size(1) <= cache.capacity(), "the KV cache holds ",
                 cache.capacity(), " tokens, ", cache.tokens() + tokens.id_BT.size(1),
                 " are needed");
  CheckTokenIds(tokens.id_BT, tokens.vision_BT, config_, /*may_be_absent=*/false, "new tokens");
}

at::Tensor DecodeModel::Read(const NewTokens& tokens, Head head, KvCache& cache) const {
  RequireHead(config_, head);
  return Logits(ReadHidden(tokens, cache), head);
}

at::Tensor DecodeModel::ReadHidden(const NewTokens& tokens, KvCache& cache) const {
  Check(tokens, cache);
  const int64_t new_tokens = tokens.id_BT.size(1);
  const int64_t padding = cache.begin_B().defined() ? cache.begin_B().min().item<int32_t>() : 0;
  const auto frequencies =
      config::ComputeRopeFrequencies(config_, cache.tokens() + new_tokens - padding);
  at::Tensor x_BD;
  for (int64_t begin = 0; begin < new_tokens; begin += kPrefillChunkTokens)
    x_BD = ReadChunk(Slice(tokens, begin, std::min(new_tokens, begin + kPrefillChunkTokens)),
                     frequencies, cache);
  return x_BD;
}

at::Tensor DecodeModel::ReadChunk(const NewTokens& chunk,
                                  const config::RopeFrequencies& frequencies,
                                  KvCache& cache) const {
  const int64_t rows = cache.rows(), new_tokens = chunk.id_BT.size(1);
  const int64_t end = cache.tokens() + new_tokens;
  const ops::RopeTable rope = ops::MakeRopeTable(
      Positions(cache, new_tokens), frequencies.inverse_frequency_R, frequencies.attention_factor);
  const double scale = 1.0 / std::sqrt(static_cast<double>(config_.head_dim));
  const auto heads = [&](const at::Tensor& x_TC) {
    return x_TC.view({rows, new_tokens, -1, config_.head_dim});
  };
  at::Tensor x_TD =
      model::Embed(chunk.id_BT, chunk.vision_BT, weights_.Outer()).reshape({rows * new_tokens, -1});

  for (int64_t l = 0; l < config_.num_hidden_layers; ++l) {
    const model::LayerWeights& w = weights_.Layer(l);
    const at::Tensor xn_TD = ops::RmsNorm(x_TD, w.attention_norm_D, config_.rms_norm_eps);
    const auto qkv_TC = ProjectEach(xn_TD, {w.q_HKxD, w.k_GKxD, w.v_GKxD});
    at::Tensor q_BTHK = heads(qkv_TC[0]), k_BTGK = heads(qkv_TC[1]);
    ops::ApplyRope(q_BTHK, rope, /*inverse=*/false);
    ops::ApplyRope(k_BTGK, rope, /*inverse=*/false);
    cache.Write(l, k_BTGK, heads(qkv_TC[2]));

    const at::Tensor attention_BTHK =
        ops::CachedAttention(q_BTHK, cache.Keys(l, end), cache.Values(l, end), cache.tokens(),
                             cache.begin_B(), /*causal=*/true, scale);
    x_TD = x_TD + Project(attention_BTHK.reshape({rows * new_tokens, -1}), w.o_DxHK);
    x_TD = x_TD + FeedForward(ops::RmsNorm(x_TD, w.ffn_norm_D, config_.rms_norm_eps), w.ffn);
    weights_.ReleaseLayer(l);
  }
  cache.Advance(new_tokens);
  return x_TD.view({rows, new_tokens, -1}).select(1, new_tokens - 1).contiguous();
}

at::Tensor DecodeModel::Logits(const at::Tensor& x_RD, Head head) const {
  RequireHead(config_, head);
  const model::OuterWeights& outer = weights_.Outer();
  const at::Tensor xn_RD = ops::RmsNorm(x_RD, outer.norm_D, config_.rms_norm_eps);
  return ops::Gemv(xn_RD, head == Head::kText ? outer.head_VD : outer.vision_head_VD, at::kFloat);
}

}  // namespace lwm::infer
