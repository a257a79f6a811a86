// `lwm bench decode` and `lwm bench prefill`: tokens per second at some depths of the cache, and
// how near attention over the cache comes to the speed of this machine's memory.
#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <memory>

#include "bench.h"
#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/infer/decode_model.h"
#include "lwm/infer/token_batch.h"
#include "lwm/ops/cached_attention.h"
#include "model_flags.h"

namespace lwm::app {
namespace {

struct DecodeFlags {
  std::string model, kv;
  std::vector<int64_t> depths = {0, 4096};
  int64_t prefill = 512, decode = 32;
};

double SecondsOf(const std::function<void()>& run) {
  const double start = MonotonicSeconds();
  run();
  return MonotonicSeconds() - start;
}

// Reading speed of memory far larger than any cache, on all threads.
double MeasureMemoryGbPerSecond() {
  const at::Tensor numbers = at::ones({int64_t{1} << 27}, at::kFloat);
  double best_seconds = 1e9;
  for (int i = 0; i < 6; ++i)
    best_seconds = std::min(best_seconds, SecondsOf([&] { numbers.sum(); }));
  return static_cast<double>(numbers.nbytes()) / best_seconds / 1e9;
}

class DecodeBench {
 public:
  DecodeBench(model::ResidentWeights& weights, const DecodeFlags& flags)
      : flags_(flags), config_(weights.config()), model_(config_, weights) {}

  Json Measure() {
    Json depths = Json::array();
    for (const int64_t depth : flags_.depths) depths.push_back(MeasureDepth(depth));
    return depths;
  }

 private:
  infer::NewTokens RandomTokens(int64_t tokens) const {
    return {at::randint(config_.vocab_size, {1, tokens}, at::kLong), {}};
  }

  // Time does not depend on what the keys are, so a deep cache need not be computed.
  void Fill(infer::KvCache& cache, int64_t depth) const {
    constexpr int64_t kChunk = 4096;
    for (int64_t begin = 0; begin < depth; begin += kChunk) {
      const int64_t count = std::min(kChunk, depth - begin);
      for (int64_t l = 0; l < config_.num_hidden_layers; ++l) {
        const at::Tensor x_BTGK =
            at::randn({1, count, config_.num_key_value_heads, config_.head_dim}).to(cache.dtype());
        cache.Write(l, x_BTGK, x_BTGK);
      }
      cache.Advance(count);
    }
  }

  // Attention alone, one query over `depth` tokens, all layers.
  double AttentionGbPerSecond(const infer::KvCache& cache, int64_t depth) const {
    if (depth == 0) return 0;
    const at::Tensor q_BTHK =
        at::randn({1, 1, config_.num_attention_heads, config_.head_dim}).to(cache.dtype());
    const auto all_layers = [&] {
      for (int64_t l = 0; l < config_.num_hidden_layers; ++l)
        ops::CachedAttention(q_BTHK, cache.Keys(l, depth), cache.Values(l, depth), depth - 1, {},
                             /*causal=*/true, 0.1);
    };
    double best_seconds = 1e9;
    for (int i = 0; i < 5; ++i) best_seconds = std::min(best_seconds, SecondsOf(all_layers));
    return static_cast<double>(depth * infer::KvBytesPerToken(config_, cache.dtype())) /
           best_seconds / 1e9;
  }

  Json MeasureDepth(int64_t depth) const {
    const int64_t most = std::max(flags_.prefill, flags_.decode + 2);
    infer::KvCache cache(config_, /*rows=*/1, depth + most, model_.dtype());
    Fill(cache, depth);
    Json result = {{"depth", depth}, {"kv_gb_per_s", AttentionGbPerSecond(cache, depth)}};
    const auto read = [&](int64_t tokens) {
      model_.Read(RandomTokens(tokens), infer::Head::kText, cache);
    };
    if (flags_.prefill > 0) {
      read(flags_.prefill);  // the first run pays for pages and primitives
      cache.Truncate(depth);
      const double seconds = SecondsOf([&] { read(flags_.prefill); });
      result["prefill_tokens_per_s"] = static_cast<double>(flags_.prefill) / seconds;
      cache.Truncate(depth);
    }
    if (flags_.decode > 0) {
      for (int i = 0; i < 2; ++i) read(1);
      const double seconds = SecondsOf([&] {
        for (int64_t i = 0; i < flags_.decode; ++i) read(1);
      });
      result["decode_tokens_per_s"] = static_cast<double>(flags_.decode) / seconds;
    }
    return result;
  }

  const DecodeFlags& flags_;
  const config::ModelConfig& config_;
  infer::DecodeModel model_;
};

void CheckDepths(const DecodeFlags& flags, const config::ModelConfig& config,
                 at::ScalarType dtype) {
  for (const int64_t depth : flags.depths) {
    LWM_REQUIRE(depth >= 0, "depth ", depth, " is negative");
    const int64_t tokens = depth + std::max(flags.prefill, flags.decode + 2);
    const double bytes =
        static_cast<double>(tokens) * static_cast<double>(infer::KvBytesPerToken(config, dtype));
    LWM_REQUIRE_AS(ErrorCode::kResourceExhausted,
                   bytes < static_cast<double>(AvailableMemoryBytes()), "keys and values of ",
                   tokens, " tokens do not fit the memory that is left; ask for less depth");
  }
}

Bench::Measure AddDecode(CLI::App& command) {
  auto flags = std::make_shared<DecodeFlags>();
  command.add_option("--model", flags->model, "model directory")->required();
  command.add_option("--depths", flags->depths, "tokens already in the cache")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--prefill", flags->prefill, "tokens read at once")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--decode", flags->decode, "tokens read one by one")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--kv", flags->kv, "type of keys and values (default: --dtype)")
      ->check(CLI::IsMember({"bf16", "f32"}));
  return [flags](Session& session, const RunFlags& run) {
    RequireOneRank(session, "bench decode");
    LWM_REQUIRE(flags->kv.empty() || flags->kv == run.dtype, "--kv ", flags->kv, " with --dtype ",
                run.dtype, ": keys and values have the type of the arithmetic");
    model::ResidentWeights weights = LoadModelFor(run, flags->model);
    CheckDepths(*flags, weights.config(), ScalarTypeOf(run));
    at::manual_seed(run.seed);
    Json result;
    result["memory_gb_per_s"] = MeasureMemoryGbPerSecond();
    result["kv"] = run.dtype;
    result["depths"] = DecodeBench(weights, *flags).Measure();
    return result;
  };
}
const Bench decode_bench("decode", "reading tokens one by one, and at once, over a cache",
                         AddDecode);
const Bench prefill_bench("prefill", "the same as decode", AddDecode);

}  // namespace
}  // namespace lwm::app
