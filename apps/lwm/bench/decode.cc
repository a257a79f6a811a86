// `lwm bench prefill`: tokens per second of prompts of some lengths. `lwm bench decode`: tokens per
// second one by one at some depths of the cache, and how near attention over the cache comes to the
// speed of this machine's memory. Both read what they measure on a cache filled to each depth.
#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

#include "bench/bench.h"
#include "flags/dtype_flag.h"
#include "flags/model_flags.h"
#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/infer/decode_model.h"
#include "lwm/infer/token_batch.h"
#include "lwm/ops/attention/cached.h"

namespace lwm::app {
namespace {

struct CacheFlags {
  std::string model = {};
  std::optional<config::Dtype> kv = {};
  std::vector<int64_t> depths, prefill;
  int64_t decode = 0;

  int64_t longest_prompt() const {
    return prefill.empty() ? 0 : *std::max_element(prefill.begin(), prefill.end());
  }
};

constexpr int64_t kWarmTokens = 2;  // read one by one before any are timed

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

class CacheBench {
 public:
  CacheBench(model::ResidentWeights& weights, const CacheFlags& flags)
      : flags_(flags), config_(weights.config()), model_(config_, weights) {}

  Json Measure() {
    Json depths = Json::array();
    for (const int64_t depth : flags_.depths)
      for (const Json& result : MeasureDepth(depth)) depths.push_back(result);
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
        ops::CachedAttention(q_BTHK, {cache.Keys(l, depth), cache.Values(l, depth)}, depth - 1,
                             /*causal=*/true, 0.1);
    };
    double best_seconds = 1e9;
    for (int i = 0; i < 5; ++i) best_seconds = std::min(best_seconds, SecondsOf(all_layers));
    return static_cast<double>(depth * infer::KvBytesPerToken(config_, cache.dtype())) /
           best_seconds / 1e9;
  }

  // Prompts are timed twice after a first time that pays for pages and primitives.
  double PrefillTokensPerSecond(infer::KvCache& cache, int64_t depth, int64_t tokens) const {
    const infer::NewTokens prompt = RandomTokens(tokens);
    double best_seconds = 1e9;
    for (int i = 0; i < 3; ++i) {
      const double seconds = SecondsOf([&] { model_.Read(prompt, infer::Head::kText, cache); });
      if (i > 0) best_seconds = std::min(best_seconds, seconds);
      cache.Truncate(depth);
    }
    return static_cast<double>(tokens) / best_seconds;
  }

  double DecodeTokensPerSecond(infer::KvCache& cache, int64_t depth) const {
    std::vector<infer::NewTokens> tokens;
    for (int64_t i = 0; i < kWarmTokens + flags_.decode; ++i) tokens.push_back(RandomTokens(1));
    const auto read = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        model_.Read(tokens[static_cast<size_t>(i)], infer::Head::kText, cache);
    };
    read(0, kWarmTokens);
    const double seconds = SecondsOf([&] { read(kWarmTokens, kWarmTokens + flags_.decode); });
    cache.Truncate(depth);
    return static_cast<double>(flags_.decode) / seconds;
  }

  // One object per length of a prompt, each with the figures of decoding, if any.
  std::vector<Json> MeasureDepth(int64_t depth) const {
    const int64_t most = std::max(flags_.longest_prompt(), flags_.decode + kWarmTokens);
    infer::KvCache cache(config_, /*rows=*/1, depth + most, model_.dtype());
    Fill(cache, depth);
    Json decoding = {{"depth", depth}};
    if (flags_.decode > 0) {
      decoding["kv_gb_per_s"] = AttentionGbPerSecond(cache, depth);
      decoding["decode_tokens"] = flags_.decode;
      decoding["decode_tokens_per_s"] = DecodeTokensPerSecond(cache, depth);
    }
    if (flags_.prefill.empty()) return {decoding};
    std::vector<Json> results;
    for (const int64_t tokens : flags_.prefill) {
      results.push_back(decoding);
      results.back()["prefill_tokens"] = tokens;
      results.back()["prefill_tokens_per_s"] = PrefillTokensPerSecond(cache, depth, tokens);
    }
    return results;
  }

  const CacheFlags& flags_;
  const config::ModelConfig& config_;
  infer::DecodeModel model_;
};

void CheckDepths(const CacheFlags& flags, const config::ModelConfig& config, at::ScalarType dtype) {
  for (const int64_t depth : flags.depths) {
    const int64_t tokens = depth + std::max(flags.longest_prompt(), flags.decode + kWarmTokens);
    const double bytes =
        static_cast<double>(tokens) * static_cast<double>(infer::KvBytesPerToken(config, dtype));
    RequireMemory(bytes, Cat("keys and values of ", tokens, " tokens"), "ask for less depth");
  }
}

// `defaults` says which of the two a command is about; the other is measured where asked for.
Bench::Measure AddCacheBench(CLI::App& command, const CacheFlags& defaults) {
  auto flags = std::make_shared<CacheFlags>(defaults);
  command.add_option("-m,--model", flags->model, "model directory")->required();
  command.add_option("--depths", flags->depths, "tokens already in the cache")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--prefill", flags->prefill, "lengths of prompts that are read at once")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--decode", flags->decode, "tokens read one by one; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddDtypeFlag(command, "--kv", flags->kv, {"bf16", "f32"},
               "type of keys and values (default: --dtype)");
  return [flags, name = command.get_name()](RunContext& context, const RunFlags& run) {
    RequireOneRank(context, ("bench " + name).c_str());
    const config::Dtype kv = flags->kv.value_or(run.dtype);
    LWM_REQUIRE(kv == run.dtype, "--kv ", config::NameOf(kv), " with --dtype ",
                config::NameOf(run.dtype), ": keys and values have the type of the arithmetic");
    std::erase(flags->prefill, 0);  // none, as with --decode
    LWM_REQUIRE(!flags->prefill.empty() || flags->decode > 0,
                "nothing to measure: give --prefill or --decode");
    model::ResidentWeights weights = LoadModelFor(run, flags->model);
    CheckDepths(*flags, weights.config(), ScalarTypeOf(run));
    at::manual_seed(run.seed);
    Json result;
    result["memory_gb_per_s"] = MeasureMemoryGbPerSecond();
    result["kv"] = run.dtype;
    result["depths"] = CacheBench(weights, *flags).Measure();
    return result;
  };
}

}  // namespace

Bench::Measure AddDecodeBench(CLI::App& command) {
  AddExamples(command, "  lwm bench decode --model models/smollm2 --depths 0,4096 --decode 64");
  return AddCacheBench(command, {.depths = {0, 4096}, .prefill = {512}, .decode = 32});
}

Bench::Measure AddPrefillBench(CLI::App& command) {
  AddExamples(command, "  lwm bench prefill --model models/smollm2 --prefill 512,4096");
  return AddCacheBench(command, {.depths = {0}, .prefill = {512, 4096}});
}

}  // namespace lwm::app
