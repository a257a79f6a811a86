// lwm bench train-step: one optimizer step of a LLaMA on one row of random tokens.

#include <algorithm>
#include <memory>

#include "bench/bench.h"
#include "flags/model_flags.h"
#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/base/random.h"
#include "lwm/config/model_config.h"
#include "lwm/run/metrics.h"
#include "lwm/train/adamw.h"
#include "lwm/train/estimate.h"
#include "lwm/train/sharded_weights.h"
#include "lwm/train/step.h"

namespace lwm::app {
namespace {

struct StepFlags {
  int64_t tokens = 4096, layers = 8, dim = 512, heads = 8, kv_heads = 8, ffn = 1376, vocab = 32000;
  int64_t rows = 1, segments = 1, ffn_slice_tokens = 2048, keep_mib = 512, warmup = 1, steps = 2;
  std::string mesh = "1,1,1,-1";
  bool update = true;
};

config::ModelConfig MakeModel(const StepFlags& flags) {
  LWM_REQUIRE(flags.dim % flags.heads == 0, "--dim ", flags.dim, " is no multiple of --heads ",
              flags.heads);
  LWM_REQUIRE(flags.segments <= flags.tokens, "--segments ", flags.segments, " in --tokens ",
              flags.tokens);
  config::ModelConfig model;
  model.vocab_size = flags.vocab;
  model.hidden_size = flags.dim;
  model.intermediate_size = flags.ffn;
  model.num_hidden_layers = flags.layers;
  model.num_attention_heads = flags.heads;
  model.num_key_value_heads = flags.kv_heads;
  model.head_dim = flags.dim / flags.heads;
  model.max_position_embeddings = flags.tokens;
  model.Validate();
  return model;
}

// Documents of random tokens, equally long, that fill a row; each counts one in the loss.
data::Row RandomRow(int64_t tokens, int64_t segments, int64_t vocab, uint64_t key) {
  const auto count = static_cast<size_t>(tokens);
  Random random(key);
  data::Row row;
  row.token_S.resize(count);
  for (int32_t& token : row.token_S)
    token = static_cast<int32_t>(random.Below(static_cast<uint64_t>(vocab)));
  row.vision_S.assign(count, 0);
  row.target_vision_S.assign(count, 0);
  row.examples = segments;
  for (int64_t segment = 0; segment < segments; ++segment) {
    const int64_t begin = tokens * segment / segments, end = tokens * (segment + 1) / segments;
    row.begin_S.insert(row.begin_S.end(), static_cast<size_t>(end - begin),
                       static_cast<int32_t>(begin));
    for (int64_t i = begin; i < end; ++i) {
      row.position_S.push_back(static_cast<int32_t>(i - begin));
      row.target_S.push_back(i + 1 < end ? row.token_S[static_cast<size_t>(i) + 1] : kNoTarget);
      row.weight_S.push_back(1.0f / static_cast<float>(std::max<int64_t>(end - begin - 1, 1)));
    }
  }
  return row;
}

struct Timing {
  double seconds = 0, loss = 0, forward_backward_seconds = 0;
};

Timing MeasureStep(const StepFlags& flags, const train::GlobalBatch& batch,
                   train::ShardedWeights& weights, train::AdamW& optimizer) {
  train::StepOptions options;
  options.decoder.ffn_slice_tokens = flags.ffn_slice_tokens;
  options.decoder.keep_bytes = flags.keep_mib << 20;
  dist::Communicator& world = weights.mesh().world();
  world.Barrier();
  const double begin = MonotonicSeconds();
  Timing timing;
  timing.loss = train::AccumulateGradients(weights, batch, 1, options).loss;
  timing.forward_backward_seconds = MonotonicSeconds() - begin;
  if (flags.update) train::ApplyUpdate(weights, optimizer, 1e-4, 1.0);
  timing.seconds = MonotonicSeconds() - begin;
  world.AllReduceMax(std::span(&timing.seconds, 1));
  return timing;
}

Json Measure(const StepFlags& flags, RunContext& context, const RunFlags& run) {
  const config::ModelConfig model = MakeModel(flags);
  dist::Mesh mesh(context.world(), dist::ParseMeshShape(flags.mesh, context.world().size()));
  train::ShardedWeights weights(model, mesh, ScalarTypeOf(run));
  train::InitOptions init;
  init.seed = run.seed;
  weights.InitRandom(init);
  train::AdamW optimizer(weights, {});
  uint64_t row = 0;
  const train::GlobalBatch batch = train::TakeGlobalBatch(
      [&] {
        return RandomRow(flags.tokens, flags.segments, model.vocab_size,
                         DeriveKey(run.seed, row++));
      },
      flags.rows, mesh.data_rank(), mesh.data_size());
  Timing best;
  for (int64_t step = 0; step < flags.warmup + flags.steps; ++step) {
    const Timing timing = MeasureStep(flags, batch, weights, optimizer);
    if (best.seconds == 0 || (step >= flags.warmup && timing.seconds < best.seconds) ||
        step == flags.warmup)
      best = timing;
  }
  const bool bf16 = run.dtype == config::Dtype::kBF16;
  const auto estimate = train::EstimateTraining({.model = model,
                                                 .mesh = mesh.shape(),
                                                 .row_tokens = flags.tokens,
                                                 .bf16 = bf16,
                                                 .residual_bf16 = bf16,
                                                 .ffn_slice_tokens = flags.ffn_slice_tokens,
                                                 .keep_bytes = flags.keep_mib << 20});
  const double flops = run::AttentionFlops(batch.allowed_pairs, model.num_hidden_layers,
                                           model.num_attention_heads, model.head_dim);
  return {{"what", "train-step"},
          {"tokens", flags.tokens * flags.rows},
          {"params", model.ParameterCount()},
          {"seconds", best.seconds},
          {"forward_backward_seconds", best.forward_backward_seconds},
          {"tokens_per_s", static_cast<double>(batch.tokens) / best.seconds},
          {"attention_gflops", flops / best.seconds / 1e9},
          {"loss", best.loss},
          {"estimate_gib", estimate.total() * mesh.shape().ranks() / (int64_t{1} << 30)}};
}

}  // namespace

Bench::Measure AddTrainStepBench(CLI::App& command) {
  auto flags = std::make_shared<StepFlags>();
  const auto size = [&](const char* name, int64_t& value, const char* help) {
    command.add_option(name, value, help)->check(CLI::PositiveNumber)->capture_default_str();
  };
  size("--tokens", flags->tokens, "tokens of a row, all its ranks together");
  size("--layers", flags->layers, "layers");
  size("--dim", flags->dim, "model width");
  size("--heads", flags->heads, "query heads");
  size("--kv-heads", flags->kv_heads, "key and value heads");
  size("--ffn", flags->ffn, "feed-forward width");
  size("--vocab", flags->vocab, "vocabulary");
  size("--segments", flags->segments, "documents packed in a row");
  size("--rows", flags->rows, "rows of the global batch");
  size("--ffn-slice-tokens", flags->ffn_slice_tokens, "tokens of a feed-forward slice");
  size("--steps", flags->steps, "steps measured; the best counts");
  command
      .add_option("--keep-mib", flags->keep_mib, "memory for activations kept for backward, MiB")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--warmup", flags->warmup, "steps before them")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--mesh", flags->mesh, "dp,fsdp,tp,sp")->capture_default_str();
  command.add_flag("!--no-update", flags->update, "forward and backward only");
  AddExamples(command,
              "  lwm bench train-step --tokens 16384\n"
              "  mpirun -np 2 lwm bench train-step --tokens 1048576 --layers 2 --dim 64 --heads 1 "
              "--kv-heads 1 --ffn 176 --vocab 512 --warmup 0 --steps 1 --no-update");
  return
      [flags](RunContext& context, const RunFlags& run) { return Measure(*flags, context, run); };
}

}  // namespace lwm::app
