#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "lwm/base/json.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/run/schedule.h"
#include "lwm/train/adamw.h"
#include "lwm/train/sharded_weights.h"
#include "lwm/train/step.h"

namespace lwm::train {
namespace {
namespace fs = std::filesystem;

using Tensors = std::map<std::string, at::Tensor>;

fs::path Folder() {
  const char* golden = std::getenv("LWM_GOLDEN");
  if (golden) return fs::path(golden) / "lwm/train_steps";
  return fs::path(std::getenv("LWM_SOURCE_DIR")) / "tests/golden/train_steps";
}

config::ModelConfig ModelOf(const Json& model) {
  config::ModelConfig config;
  config.vocab_size = model["vocab_size"];
  config.hidden_size = model["hidden_size"];
  config.intermediate_size = model["intermediate_size"];
  config.num_hidden_layers = model["num_hidden_layers"];
  config.num_attention_heads = config.num_key_value_heads = model["num_attention_heads"];
  config.head_dim = config.hidden_size / config.num_attention_heads;
  config.max_position_embeddings = 24;
  config.rms_norm_eps = model["rms_norm_eps"];
  config.rope_theta = model["theta"];
  config.Validate();
  return config;
}

// The published code turns neighbours by one angle, we turn i and i + K/2.
at::Tensor FromNeighbourPairs(const at::Tensor& w_HKxD, int64_t heads) {
  const int64_t dim = w_HKxD.size(1);
  return w_HKxD.view({heads, -1, 2, dim}).transpose(1, 2).reshape({-1, dim});
}

// One of our tensors, made from the published names and layouts.
at::Tensor Convert(const Tensors& published, const config::ModelConfig& config,
                   const model::TensorSpec& spec) {
  static const std::map<std::string, std::string> kOuter = {
      {"model.embed_tokens.weight", "transformer/wte/embedding"},
      {"model.norm.weight", "transformer/ln_f/kernel"},
      {"lm_head.weight", "lm_head/kernel"}};
  static const std::map<std::string, std::string> kLayer = {
      {"input_layernorm.weight", "attention_norm"}, {"self_attn.q_proj.weight", "attention/wq"},
      {"self_attn.k_proj.weight", "attention/wk"},  {"self_attn.v_proj.weight", "attention/wv"},
      {"self_attn.o_proj.weight", "attention/wo"},  {"post_attention_layernorm.weight", "ffn_norm"},
      {"mlp.gate_proj.weight", "feed_forward/w1"},  {"mlp.up_proj.weight", "feed_forward/w3"},
      {"mlp.down_proj.weight", "feed_forward/w2"}};
  if (const auto outer = kOuter.find(spec.name); outer != kOuter.end()) {
    const at::Tensor tensor = published.at(outer->second);
    return outer->second == "lm_head/kernel" ? tensor.t().contiguous() : tensor;
  }
  const std::string rest = spec.name.substr(std::string("model.layers.").size());
  const size_t dot = rest.find('.');
  const std::string name = kLayer.at(rest.substr(dot + 1));
  const at::Tensor tensor = published.at("transformer/h/scan_decoder/" + name + "/kernel")
                                .select(0, std::stoll(rest.substr(0, dot)));
  if (tensor.dim() == 1) return tensor;
  const at::Tensor turned = tensor.t().contiguous();
  const bool rotary = name.ends_with("wq") || name.ends_with("wk");
  return rotary ? FromNeighbourPairs(turned, config.num_attention_heads) : turned;
}

data::Row MakeRow(const Tensors& batches, int64_t micro_step, int64_t row) {
  const auto ints = [&](const char* name) {
    const at::Tensor values = batches.at(name)[micro_step][row].contiguous();
    return std::vector<int32_t>(values.const_data_ptr<int32_t>(),
                                values.const_data_ptr<int32_t>() + values.numel());
  };
  const at::Tensor mask = batches.at("loss_mask")[micro_step][row].contiguous();
  const float valid = mask.sum().item<float>();
  data::Row result;
  result.token_S = ints("input_ids");
  result.target_S = ints("target_ids");
  const size_t tokens = result.token_S.size();
  result.vision_S.assign(tokens, 0);
  result.target_vision_S.assign(tokens, 0);
  result.begin_S.assign(tokens, 0);
  for (size_t i = 0; i < tokens; ++i) {
    const float kept = mask.const_data_ptr<float>()[i];
    result.weight_S.push_back(kept / valid);
    if (kept == 0) result.target_S[i] = -100;
    result.position_S.push_back(static_cast<int32_t>(i));
  }
  result.examples = 1;
  return result;
}

GlobalBatch MakeMicroStep(const Tensors& batches, int64_t micro_step) {
  GlobalBatch batch;
  for (int64_t row = 0; row < batches.at("input_ids").size(1); ++row)
    batch.rows.push_back(MakeRow(batches, micro_step, row));
  batch.examples = static_cast<int64_t>(batch.rows.size());
  return batch;
}

// Adam divides by the root of the second moment, so weights whose gradients are tiny may differ by
// more than the rest: all within a wide bound, the bulk within a narrow one.
void ExpectWeights(ShardedWeights& weights, const fs::path& file) {
  const Tensors wanted = checkpoint::LoadTensors(file);
  double worst = 0, squares = 0, count = 0;
  weights.VisitWhole([&](const model::TensorSpec& spec, const at::Tensor& whole) {
    const at::Tensor difference = (whole - Convert(wanted, weights.config(), spec)).to(at::kDouble);
    worst = std::max(worst, difference.abs().max().item<double>());
    squares += difference.square().sum().item<double>();
    count += static_cast<double>(difference.numel());
  });
  EXPECT_LT(worst, 1e-6) << file;
  EXPECT_LT(std::sqrt(squares / count), 3e-8) << file;
}

double ParameterNorm(ShardedWeights& weights) {
  double squares = 0;
  weights.VisitWhole([&](const model::TensorSpec&, const at::Tensor& whole) {
    squares += whole.to(at::kDouble).square().sum().item<double>();
  });
  return std::sqrt(squares);
}

TEST(TrainStepsGolden, FiveUpdatesRepeatThePublishedRun) {
  const Json golden = ReadJsonFile(Folder() / "case.json");
  const Json& settings = golden["optimizer"];
  const config::ModelConfig config = ModelOf(golden["model"]);
  const auto self = dist::MakeSelfCommunicator();
  dist::Mesh mesh(*self, {});
  ShardedWeights weights(config, mesh, at::kFloat);
  const Tensors initial = checkpoint::LoadTensors(Folder() / "initial.safetensors");
  weights.Load([&](const model::TensorSpec& spec) { return Convert(initial, config, spec); });
  AdamW optimizer(weights, {.beta1 = settings["b1"],
                            .beta2 = settings["b2"],
                            .eps = settings["eps"],
                            .weight_decay = settings["weight_decay"],
                            .no_decay = {}});
  const run::Schedule schedule = {.init_lr = settings["init_lr"],
                                  .lr = settings["lr"],
                                  .min_lr = settings["end_lr"],
                                  .warmup_steps = settings["lr_warmup_steps"],
                                  .decay_steps = settings["lr_decay_steps"]};
  const Tensors batches = checkpoint::LoadTensors(Folder() / "batches.safetensors");
  const int64_t accumulate = settings["accumulate_gradient_steps"];
  for (const Json& log : golden["log"]) {
    const int64_t micro_step = log["micro_step"];
    SCOPED_TRACE(micro_step);
    StepOptions options;
    options.micro_rows = micro_step % 3 ? 1 : 2;
    const Losses losses = AccumulateGradients(weights, MakeMicroStep(batches, micro_step),
                                              1.0 / static_cast<double>(accumulate), options);
    EXPECT_NEAR(losses.loss, log["loss"], 1.5e-6);
    if (!log.contains("update")) {
      const double norm = log["micro_grad_norm"];
      EXPECT_NEAR(weights.GradientNorm() * static_cast<double>(accumulate), norm, 3e-7 * norm);
    } else {
      const double lr = run::LearningRate(schedule, log["update"]), wanted_lr = log["lr_applied"];
      EXPECT_NEAR(lr, wanted_lr, 1e-8);
      const double norm = log["mean_grad_norm_before_clip"];
      EXPECT_NEAR(ApplyUpdate(weights, optimizer, lr, settings["clip_gradient"]), norm,
                  3e-7 * norm);
    }
    EXPECT_NEAR(ParameterNorm(weights), log["param_norm_after"], 4e-6);
    if (micro_step == 3) ExpectWeights(weights, Folder() / "after_2_updates.safetensors");
  }
  ExpectWeights(weights, Folder() / "final.safetensors");
}

}  // namespace
}  // namespace lwm::train
