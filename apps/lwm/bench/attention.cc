// `lwm bench attention`: ring attention over the ranks of this run, useful work per second.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "bench/bench.h"
#include "flags/model_flags.h"
#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/dist/sequence_plan.h"
#include "lwm/ops/attention/ring_attention.h"
#include "lwm/ops/attention/sequence_view.h"

namespace lwm::app {
namespace {

struct AttentionFlags {
  int64_t tokens = 16384, heads = 4, kv_heads = 0, head_dim = 128, segments = 1;
  bool causal = true;
};

void CheckFlags(const AttentionFlags& flags) {
  LWM_REQUIRE(flags.tokens >= 1 && flags.heads >= 1 && flags.head_dim >= 1,
              "--tokens, --heads and --head-dim must be at least 1");
  LWM_REQUIRE(flags.kv_heads >= 0 && (!flags.kv_heads || flags.heads % flags.kv_heads == 0),
              "--kv-heads must divide --heads, ", flags.heads, "; got ", flags.kv_heads);
  LWM_REQUIRE(flags.segments >= 1 && flags.segments <= flags.tokens,
              "--segments must be 1 to the number of tokens, ", flags.tokens, "; got ",
              flags.segments);
  LWM_REQUIRE(flags.causal, "only causal attention goes round the ring; leave --causal true");
}

// Segments of equal length, the last one shorter.
std::vector<int32_t> SegmentBegins(const AttentionFlags& flags) {
  const int64_t length = (flags.tokens + flags.segments - 1) / flags.segments;
  std::vector<int32_t> begin_S;
  for (int64_t i = 0; i < flags.tokens; ++i) {
    begin_S.push_back(static_cast<int32_t>(i / length * length));
  }
  return begin_S;
}

class AttentionBench {
 public:
  AttentionBench(const AttentionFlags& flags, RunContext& context, at::ScalarType dtype)
      : flags_(flags), context_(context), begin_S_(SegmentBegins(flags)) {
    dist::Communicator& world = context.world();
    const bool packed = flags.segments > 1;
    const dist::SequencePlan plan =
        (packed ? dist::PlanBalanced : dist::PlanZigzag)(flags.tokens, world.size(), begin_S_);
    view_ = ops::MakeSequenceView({plan}, world.size() > 1 ? &world : nullptr);
    const int64_t kv_heads = flags.kv_heads ? flags.kv_heads : flags.heads;
    const auto random = [&](int64_t heads) {
      return at::randn({1, view_.tokens(), heads, flags.head_dim}).to(dtype);
    };
    qkv_ = {random(flags.heads), random(kv_heads), random(kv_heads)};
    dout_BTHK_ = random(flags.heads);
  }

  Json Measure() {
    const double scale = 1 / std::sqrt(static_cast<double>(flags_.head_dim));
    const ops::RingAttention ring(view_);
    double forward_s = 1e30, backward_s = 1e30, total_s = 0;
    for (int i = 0; i < 3 || (total_s < 3 && i < 20); ++i) {
      const double start = Now();
      const ops::AttentionResult result = ring.Forward(qkv_, scale);
      const double middle = Now();
      ring.Backward(dout_BTHK_, qkv_, result, scale);
      const double end = Now();
      forward_s = std::min(forward_s, middle - start);
      backward_s = std::min(backward_s, end - middle);
      total_s += end - start;
    }
    const double work = 4e-9 * static_cast<double>(flags_.heads * flags_.head_dim) * AllowedPairs();
    return {{"forward_gflops", work / forward_s}, {"backward_gflops", 2.5 * work / backward_s}};
  }

 private:
  // The clock of the first rank, once all are there, so that every rank makes the same decisions.
  double Now() {
    context_.world().Barrier();
    double now = MonotonicSeconds();
    context_.world().Broadcast(std::as_writable_bytes(std::span(&now, 1)), 0);
    return now;
  }

  double AllowedPairs() const {
    double pairs = 0;
    for (int64_t i = 0; i < flags_.tokens; ++i) {
      pairs += static_cast<double>(i + 1 - begin_S_[static_cast<size_t>(i)]);
    }
    return pairs;
  }

  AttentionFlags flags_;
  RunContext& context_;
  std::vector<int32_t> begin_S_;
  ops::SequenceView view_;
  ops::Qkv qkv_;
  at::Tensor dout_BTHK_;
};

}  // namespace

Bench::Measure AddAttentionBench(CLI::App& command) {
  auto flags = std::make_shared<AttentionFlags>();
  const auto count = [&](const char* name, int64_t& value, const char* help) {
    command.add_option(name, value, help)->check(CLI::PositiveNumber)->capture_default_str();
  };
  count("--tokens", flags->tokens, "tokens of the row, all ranks together");
  count("--heads", flags->heads, "query heads");
  command.add_option("--kv-heads", flags->kv_heads, "key and value heads; 0: as many as --heads")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  count("--head-dim", flags->head_dim, "numbers per head");
  command.add_option("--causal", flags->causal, "a token sees itself and what is before it")
      ->capture_default_str();
  count("--segments", flags->segments, "packed examples of equal length in the row");
  AddExamples(command,
              "  lwm bench attention --tokens 16384 --heads 4 --head-dim 128\n"
              "  mpirun -np 2 lwm bench attention --tokens 16384 --segments 32");
  return [flags](RunContext& context, const RunFlags& run) {
    CheckFlags(*flags);
    at::manual_seed(run.seed + static_cast<uint64_t>(context.world().rank()));
    return AttentionBench(*flags, context, ScalarTypeOf(run)).Measure();
  };
}

}  // namespace lwm::app
