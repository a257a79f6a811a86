#include "lwm/infer/decode_model.h"

#include <ATen/ATen.h>

#include "lwm/base/error.h"
#include "lwm/infer/token_batch.h"
#include "lwm/model/embedding.h"
#include "lwm/model/layer.h"
#include "lwm/ops/attention/cached.h"
#include "lwm/ops/gemv.h"
#include "lwm/ops/rms_norm.h"

namespace lwm::infer {
namespace {

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

at::ScalarType DecodeModel::dtype() const { return weights_.NonLayer().head_VD.dtype(); }

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
  // One table for all chunks: with dynamic scaling it depends on the length after this call, not on
  // how the prompt is cut.
  const auto frequencies =
      config::ComputeRopeFrequencies(config_, cache.tokens() + new_tokens - padding);
  at::Tensor x_BD;
  for (int64_t begin = 0; begin < new_tokens; begin += kPrefillChunkTokens)
    // A chunk sees the cache and itself; activations are those of one chunk, whatever the prompt's
    // length.
    x_BD = ReadChunk(Slice(tokens, begin, std::min(new_tokens, begin + kPrefillChunkTokens)),
                     frequencies, cache);
  return x_BD;
}

at::Tensor DecodeModel::ReadChunk(const NewTokens& chunk,
                                  const config::RopeFrequencies& frequencies,
                                  KvCache& cache) const {
  const int64_t new_tokens = chunk.id_BT.size(1), end = cache.tokens() + new_tokens;
  const model::DecoderOptions options{.residual_dtype = dtype(),
                                      .ffn_slice_tokens = kPrefillChunkTokens};
  const model::LayerContext context{
      config_, options,
      ops::MakeRopeTable(Positions(cache, new_tokens), frequencies.inverse_frequency_R,
                         frequencies.attention_factor)};
  at::Tensor x_BTD = model::Embed(chunk.id_BT, chunk.vision_BT, weights_.NonLayer());
  for (int64_t l = 0; l < config_.num_hidden_layers; ++l) {
    const auto over_cache = [&](const ops::Qkv& qkv, double scale) {
      // First the new keys, then attention over all: a token sees itself and those before it.
      cache.Write(l, qkv.k_BTGK, qkv.v_BTGK);
      ops::AttentionResult result;
      result.out_BTHK = ops::CachedAttention(
          qkv.q_BTHK, {cache.Keys(l, end), cache.Values(l, end), cache.begin_B()}, cache.tokens(),
          /*causal=*/true, scale);
      return result;
    };
    const model::LayerHandle layer = weights_.Layer(l);
    x_BTD = model::LayerForward(context, *layer, x_BTD, over_cache, /*saved=*/nullptr);
  }
  cache.Advance(new_tokens);
  // Only the last token is sampled from, so only it goes through the head.
  return x_BTD.select(1, new_tokens - 1).contiguous();
}

at::Tensor DecodeModel::Logits(const at::Tensor& x_RD, Head head) const {
  RequireHead(config_, head);
  const model::NonLayerWeights& outer = weights_.NonLayer();
  const at::Tensor xn_RD = ops::RmsNorm(x_RD, outer.norm_D, config_.rms_norm_eps);
  return ops::Gemv(xn_RD, head == Head::kText ? outer.head_VD : outer.vision_head_VD, at::kFloat);
}

}  // namespace lwm::infer
