#include "lwm/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "lwm/base/count_of.h"
#include "lwm/base/count_text.h"
#include "lwm/base/error.h"
#include "lwm/base/format.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/data/tokenizer_files.h"
#include "lwm/io/checkpoint_place.h"
#include "lwm/run/metrics.h"
#include "lwm/run/plot.h"
#include "lwm/run/schedule.h"
#include "lwm/train/adamw.h"
#include "lwm/train/checkpoint.h"
#include "lwm/train/estimate.h"
#include "lwm/train/evaluate.h"
#include "lwm/train/run_setup.h"
#include "lwm/train/step.h"

namespace lwm::train {
namespace {

namespace fs = std::filesystem;

AdamWOptions MakeAdamWOptions(const config::OptimizerSection& section) {
  return {.beta1 = section.beta1,
          .beta2 = section.beta2,
          .eps = section.eps,
          .weight_decay = section.weight_decay,
          .no_decay = section.no_decay};
}

// Every method is a phase and collective.
class Run final : public run::TrainingRun {
 public:
  Run(const config::TrainConfig& config, dist::Communicator& world, const TrainHooks& hooks)
      : TrainingRun(config.train, TrainConfigToJson(config), world, hooks),
        config_(config),
        train_hooks_(hooks),
        mesh_(world, dist::ParseMeshShape(config.parallel.mesh, world.size())),
        schedule_(run::MakeSchedule(config.optimizer, config.train.steps)) {}

  void ReportSkippedLines() const {
    if (rows_->skipped() > 0)
      Say(fmt::format("data: {} bad lines were skipped (data.skip_bad_lines)", rows_->skipped()));
  }

 private:
  void Prepare() override {
    // Cheap checks before long work: sizes and memory are refused before data is read.
    if (config_.data.train_tokenizer_vocab > 0 && !checkpoint())
      Say(fmt::format("training a tokenizer of {} pieces", config_.data.train_tokenizer_vocab));
    tokenizer_ = PrepareTokenizer(config_, checkpoint(), world());
    model_ = PrepareModel(config_, checkpoint(), *tokenizer_);
    files_ = FilesBesideModel(config_, checkpoint(), *tokenizer_, model_);
    const MemoryWorkload question = MakeMemoryWorkload(config_, model_, mesh_.shape());
    Say(DescribeModel());
    Say("memory: about " + Describe(EstimateTraining(question)));
    RequireFits(question, dist::RanksOnThisNode(), UsableMemory());
    rows_ = OpenRows(config_, tokenizer_, world(), [&](const std::string& line) { Say(line); });
    const auto summary = rows_->summary();
    for (const std::string& note : summary.notes) Warn(note);
    Say(fmt::format("data: {}, {} training documents or pieces, {} held out{}",
                    CountOf(summary.files, "file"), summary.train_units, summary.held_out_units,
                    summary.tokens > 0 ? ", " + CountOf(summary.tokens, "token") : ""));
    LoadOrInit();
  }

  std::string DescribeModel() const {
    const dist::MeshShape& mesh = mesh_.shape();
    return fmt::format(
        "model: {} parameters, {}, width {}, vocabulary {}; {} of {} tokens a "
        "step on {} (dp {}, fsdp {}, tp {}, sp {})",
        ShortCount(static_cast<double>(model_.ParameterCount())),
        CountOf(model_.num_hidden_layers, "layer"), model_.hidden_size, model_.vocab_size,
        CountOf(config_.RowsPerBatch() * config_.optimizer.accumulate, "row"),
        config_.data.row_tokens, CountOf(world().size(), "rank"), mesh.dp, mesh.fsdp, mesh.tp,
        mesh.sp);
  }

  // Bytes that all ranks of this machine may use together, including those already in use.
  double UsableMemory() {
    if (config_.train.memory_gib > 0) return config_.train.memory_gib * (int64_t{1} << 30);
    world().Barrier();  // so that nobody has begun to allocate
    const auto taken = static_cast<double>(ResidentMemoryBytes()) * dist::RanksOnThisNode();
    return static_cast<double>(AvailableMemoryBytes()) + taken;
  }

  void LoadOrInit() {
    weights_ = std::make_unique<ShardedWeights>(model_, mesh_,
                                                checkpoint::ToScalarType(config_.train.dtype));
    optimizer_ = std::make_unique<AdamW>(*weights_, MakeAdamWOptions(config_.optimizer));
    if (checkpoint()) {
      Resume();
    } else {
      Say(config_.model.init.empty() ? "starting from random weights"
                                     : "starting from " + config_.model.init);
      InitWeights(config_, *weights_);
    }
    if (is_root()) data::WriteFiles(files_, folder());
  }

  void Resume() {
    const LoadedCheckpoint loaded = LoadCheckpoint(*checkpoint(), *weights_, *optimizer_);
    tokens_ = JsonGet<int64_t>(loaded.state.trainer, "tokens", checkpoint()->string());
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, !loaded.data_cursors.empty(), checkpoint()->string(),
                   " says nothing about where its data goes on");
    const Json before = loaded.state.trainer.value("config", Json::object());
    RequireTrainedTokenizer(before);
    if (!rows_->RestoreState(loaded.data_cursors.front()))  // all ranks read one stream
      Warn(
          "the data has changed since the run was saved; it begins anew "
          "(data.allow_changed)");
    GoOn(loaded.state.step, before);
  }

  // A tokenizer is trained once; another size later on would be passed over in silence.
  void RequireTrainedTokenizer(const Json& before) const {
    const int64_t wanted = config_.data.train_tokenizer_vocab;
    const int64_t trained =
        before.value("data", Json::object()).value("train_tokenizer_vocab", wanted);
    LWM_REQUIRE(wanted == 0 || wanted == trained, "data.train_tokenizer_vocab is ", wanted,
                ", but the run in ", folder().string(), " was begun with ",
                trained == 0 ? "a given tokenizer" : Cat("a tokenizer of ", trained, " pieces"),
                ": restore it, or begin a new run in another train.run_folder");
  }

  StepOptions MakeStepOptions() const {
    StepOptions options;
    options.decoder.residual_dtype = checkpoint::ToScalarType(config_.train.StreamDtype());
    options.decoder.ffn_slice_tokens = config_.train.ffn_slice_tokens;
    options.decoder.keep_bytes = config_.train.keep_mib << 20;
    options.micro_rows = config_.train.micro_rows;
    return options;
  }

  // A global batch is dropped before the next is read.
  double Step() override {
    metrics_ = {};
    allowed_pairs_ = 0;
    step_tokens_ = 0;
    bool has_targets = false;
    // Gradients add up over `accumulate` global batches, each with this share of the step's loss.
    const double share = 1.0 / static_cast<double>(config_.optimizer.accumulate);
    for (int64_t i = 0; i < config_.optimizer.accumulate; ++i) {
      const GlobalBatch batch =
          TakeGlobalBatch([&] { return rows_->Next(); }, config_.RowsPerBatch(), mesh_.data_rank(),
                          mesh_.data_size());
      const Losses losses = AccumulateGradients(*weights_, batch, share, MakeStepOptions());
      metrics_.loss += share * losses.loss;
      metrics_.text_loss += share * losses.text_loss;
      metrics_.vision_loss += share * losses.vision_loss;
      allowed_pairs_ += batch.allowed_pairs;
      step_tokens_ += batch.tokens;
      has_targets = has_targets || batch.has_targets;
    }
    if (!has_targets)
      Warn(fmt::format("step {} has no token to learn; its loss of 0 says nothing", step() + 1));
    metrics_.lr = run::LearningRate(schedule_, step());
    metrics_.grad_norm =
        ApplyUpdate(*weights_, *optimizer_, metrics_.lr, config_.optimizer.clip_norm);
    metrics_.step = step() + 1;
    metrics_.tokens = tokens_ += step_tokens_;
    return metrics_.loss;
  }

  Json Metrics(const run::StepCost& cost) override {
    metrics_.tokens_per_s = static_cast<double>(step_tokens_) / cost.seconds;
    metrics_.attention_tflops = run::AttentionFlops(allowed_pairs_, model_.num_hidden_layers,
                                                    model_.num_attention_heads, model_.head_dim) /
                                cost.seconds / 1e12;
    metrics_.peak_gib = cost.peak_gib;
    return run::ToJson(metrics_);
  }

  std::string ProgressLine(const run::StepCost& cost) override {
    return run::ProgressLine(metrics_, config_.train.steps, cost.seconds_left);
  }

  // When due: evaluation, checkpoint, samples, images. All ranks go through all of them together.
  void AfterStep(bool last) override {
    const config::TrainSection& train = config_.train;
    // Evaluation uses the weights in memory. Samples and images read the model back from its
    // folder, so the checkpoint comes before them.
    const bool evaluates = HasHeldOut() && IsDue(train.eval_every, last);
    const bool samples =
        train_hooks_.sample && !train.sample_prompt.empty() && IsDue(train.sample_every, last);
    const bool images =
        train_hooks_.images && config_.pictures.is_used() && IsDue(config_.pictures.every, last);
    Json line = {{"step", step()}};
    if (evaluates) line.update(EvaluateHeldOut());
    if (samples || images || IsDue(train.checkpoint_every, last)) Save();
    if (samples) WriteSample();
    if (images) line.update(WriteImages(last));
    if (!is_root() || line.size() == 1) return;
    LogEvaluation(line);
    UpdateCurves();  // with the measures, which came after the checkpoint
  }

  bool HasHeldOut() const { return rows_->summary().held_out_units > 0; }

  Json EvaluateHeldOut() {
    const auto rows = rows_->HeldOut();
    const Evaluation result =
        Evaluate(*weights_, *rows, config_.data.held_out_rows, MakeStepOptions());
    std::string by_position;
    for (const PositionBucket& bucket : result.buckets)
      by_position += fmt::format(
          "  {} {:.3f}", ShortTokens(std::min(bucket.end, config_.data.row_tokens)), bucket.loss);
    Say(fmt::format("held out at step {}: loss {:.4f}, perplexity {:.2f}; by position{}", step(),
                    result.losses.loss, std::exp(result.token_loss), by_position));
    return ToJson(result, step());
  }

  // The other ranks wait.
  void AttemptOnRoot(const char* thing, const std::function<void()>& work) {
    if (is_root()) Attempt(thing, work);
    world().Barrier();
  }

  // Measures on rank 0, nothing on the others.
  Json WriteImages(bool last) {
    Json measures = Json::object();
    AttemptOnRoot("pictures", [&] {
      const fs::path pictures = folder() / "pictures";
      fs::create_directories(pictures);
      measures =
          train_hooks_.images(*checkpoint(), pictures / fmt::format("step_{}.png", step()), last);
      std::string text;
      for (const auto& [name, value] : measures.items())
        text += fmt::format("{} {} {}", text.empty() ? ":" : ",", name, value.dump());
      Say(fmt::format("images at step {}{}", step(), text));
    });
    return measures;
  }

  fs::path WriteCheckpoint() override {
    CheckpointOptions options{.keep = config_.train.checkpoint_keep,
                              .config = ModelConfigToJson(model_, "float32"),
                              .extra_files = {},
                              .warn = [&](const std::string& problem) { Warn(problem); }};
    for (const auto& [name, content] : files_) {
      const fs::path first = *fs::path(name).begin();  // a file, or the folder that holds it
      options.extra_files[first] = folder() / first;
    }
    if (const fs::path vqgan = io::FindCheckpoint(config_.data.vqgan); !vqgan.empty())
      options.extra_files["vqgan"] = fs::is_directory(vqgan / "vqgan") ? vqgan / "vqgan" : vqgan;
    TrainerState state;
    state.step = step();
    state.trainer = {{"tokens", tokens_}, {"config", settings()}};
    state.data_cursor = rows_->SaveState();
    return SaveCheckpoint(folder(), options, state, *weights_, *optimizer_);
  }

  void WriteSample() {
    AttemptOnRoot("sample", [&] {
      const std::string text = train_hooks_.sample(*checkpoint());
      std::ofstream file(folder() / "samples.txt", std::ios::app);
      file << "=== step " << step() << "\n" << config_.train.sample_prompt << text << "\n\n";
      Say(fmt::format("sample at step {}:\n{}{}", step(), config_.train.sample_prompt, text));
    });
  }

  std::string DrawCurves() override {
    return run::PlotCurves(folder() / "loss.png", run::LossCurves(folder()),
                           {.title = folder().filename().string()});
  }

  const config::TrainConfig& config_;
  const TrainHooks& train_hooks_;
  dist::Mesh mesh_;
  const run::Schedule schedule_;
  std::shared_ptr<const data::Tokenizer> tokenizer_;
  config::ModelConfig model_;
  std::map<std::string, std::string> files_;  // beside the weights: name -> content
  std::unique_ptr<data::RowLoader> rows_;
  std::unique_ptr<ShardedWeights> weights_;
  std::unique_ptr<AdamW> optimizer_;
  int64_t tokens_ = 0;        // trained on since the beginning
  run::StepMetrics metrics_;  // of the last step, as are the next two
  int64_t step_tokens_ = 0;
  double allowed_pairs_ = 0;
};

}  // namespace

run::RunResult Train(const config::TrainConfig& config, dist::Communicator& world,
                     const TrainHooks& hooks) {
  Run run(config, world, hooks);
  const run::RunResult result = run.Execute();
  run.ReportSkippedLines();
  return result;
}

}  // namespace lwm::train
