#include "lwm/infer/kv/kv_cache.h"

#include <ATen/ATen.h>

#include <cstring>

#include "lwm/base/error.h"
#include "lwm/base/round_up.h"

namespace lwm::infer {
namespace {

constexpr int64_t kPageBytes = 4096;

}  // namespace

KvCache::KvCache(const config::ModelConfig& config, int64_t rows, int64_t capacity,
                 at::ScalarType dtype)
    : rows_(rows),
      capacity_(capacity),
      heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      dtype_(dtype),
      token_bytes_(config.head_dim * static_cast<int64_t>(at::elementSize(dtype))),
      run_bytes_(RoundUp(capacity * token_bytes_, kPageBytes)) {
  LWM_REQUIRE(rows >= 1 && capacity >= 1, "KvCache: want at least one row and one token, got ",
              rows, " rows of ", capacity);
  LWM_REQUIRE(dtype == at::kFloat || dtype == at::kBFloat16, "KvCache: want f32 or bf16, got ",
              dtype);
  // Reserved only: nothing here fails when memory is short, so callers check before they begin.
  for (int64_t l = 0; l < config.num_hidden_layers; ++l)
    layers_.emplace_back(static_cast<size_t>(2 * rows_ * heads_ * run_bytes_));
}

void KvCache::SetBegin(const at::Tensor& begin_B) {
  LWM_CHECK(tokens_ == 0, "begin of rows set after ", tokens_, " tokens");
  LWM_CHECK(!begin_B.defined() || (begin_B.dim() == 1 && begin_B.size(0) == rows_ &&
                                   begin_B.scalar_type() == at::kInt),
            "begin_B is not i32 [", rows_, "]");
  begin_B_ = begin_B;
}

std::byte* KvCache::Run(int64_t layer, int64_t which, int64_t row, int64_t head) const {
  return layers_[static_cast<size_t>(layer)].data() +
         ((which * rows_ + row) * heads_ + head) * run_bytes_;
}

// A head's tokens are adjacent, so attention streams one run per (row, head).
at::Tensor KvCache::View(int64_t layer, int64_t which, int64_t tokens) const {
  LWM_CHECK(tokens <= capacity_, tokens, " tokens of ", capacity_);
  const int64_t run = run_bytes_ / static_cast<int64_t>(at::elementSize(dtype_));
  return at::from_blob(Run(layer, which, 0, 0), {rows_, tokens, heads_, head_dim_},
                       {heads_ * run, head_dim_, run, 1}, at::TensorOptions(dtype_));
}

void KvCache::CopyIn(int64_t layer, int64_t which, const at::Tensor& x_BTGK) {
  const int64_t new_tokens = x_BTGK.size(1);
  LWM_CHECK(x_BTGK.is_contiguous() && x_BTGK.scalar_type() == dtype_ &&
                x_BTGK.sizes() == at::IntArrayRef({rows_, new_tokens, heads_, head_dim_}),
            "keys or values of ", x_BTGK.sizes(), " ", x_BTGK.scalar_type());
  const auto* from = static_cast<const std::byte*>(x_BTGK.const_data_ptr());
  for (int64_t b = 0; b < rows_; ++b)
    for (int64_t g = 0; g < heads_; ++g) {
      std::byte* to = Run(layer, which, b, g) + tokens_ * token_bytes_;
      // From [B,T,G,K] to runs by head.
      for (int64_t t = 0; t < new_tokens; ++t)
        std::memcpy(to + t * token_bytes_,
                    from + ((b * new_tokens + t) * heads_ + g) * token_bytes_,
                    static_cast<size_t>(token_bytes_));
    }
}

void KvCache::Write(int64_t layer, const at::Tensor& k_BTGK, const at::Tensor& v_BTGK) {
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, tokens_ + k_BTGK.size(1) <= capacity_,
                 "the KV cache holds ", capacity_, " tokens, ", tokens_ + k_BTGK.size(1),
                 " are needed");
  // Behind tokens(), which only Advance moves, after all layers: a pass that fails in the middle
  // leaves the cache as it was, and the next one writes to the same place.
  CopyIn(layer, 0, k_BTGK);
  CopyIn(layer, 1, v_BTGK);
}

void KvCache::Advance(int64_t tokens) {
  LWM_CHECK(tokens >= 0 && tokens_ + tokens <= capacity_, tokens_, " + ", tokens, " tokens");
  tokens_ += tokens;
}

void KvCache::Truncate(int64_t tokens) {
  LWM_CHECK(tokens >= 0 && tokens <= tokens_, tokens, " of ", tokens_, " tokens");
  // Runs are whole pages apart, so none gives back a page of the next one.
  const auto kept = static_cast<size_t>(tokens * token_bytes_);
  const auto used = static_cast<size_t>(tokens_ * token_bytes_);
  for (const ReservedMemory& layer : layers_)
    for (size_t run = 0; run < layer.bytes(); run += static_cast<size_t>(run_bytes_))
      layer.Discard(run + kept, used - kept);
  tokens_ = tokens;
}

int64_t KvBytesPerToken(const config::ModelConfig& config, at::ScalarType dtype) {
  return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim *
         static_cast<int64_t>(at::elementSize(dtype));
}

}  // namespace lwm::infer
