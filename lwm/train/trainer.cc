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
#include "lwm/base/file.h"
#include "lwm/base/format.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/data/tokenizer_files.h"
#include "lwm/io/checkpoint_place.h"
#include "lwm/run/checkpoint_find.h"
#include "lwm/run/metrics.h"
#include "lwm/run/plot.h"
#include "lwm/run/run_folder.h"
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

// One run from setup to its last checkpoint; every method is a phase and collective.
class Run {
 public:
  Run(const config::TrainConfig& config, dist::Communicator& world, const TrainHooks& hooks)
      : config_(config),
        folder_(config.train.run_folder),
        hooks_(hooks),
        world_(world),
        mesh_(world, dist::ParseMeshShape(config.parallel.mesh, world.size())),
        schedule_(run::MakeSchedule(config.optimizer, config.train.steps)) {}

  TrainResult Execute() {
    Prepare();
    LoadOrInit();
    run::RunClock clock(config_.train.max_minutes, hooks_.stop);
    double loss = 0;
    run::EarlyEnd end = run::EarlyEnd::kNo;
    // Phases of a step: rows, forward and backward of each micro-batch, update, log; then, when
    // due, evaluation, checkpoint, samples. All ranks go through all of them together.
    while (step_ < config_.train.steps && end == run::EarlyEnd::kNo) {
      loss = TrainStep(clock);
      end = clock.EndsEarly(world_);
      if (end == run::EarlyEnd::kAsked) {
        Save();  // and nothing else: whoever asked is waiting
      } else {
        AfterStep(end == run::EarlyEnd::kOutOfTime || step_ == config_.train.steps);
      }
    }
    if (end != run::EarlyEnd::kNo && step_ < config_.train.steps)
      Say(clock.StoppedLine(end, step_));
    if (rows_->skipped() > 0)
      Say(fmt::format("data: {} bad lines were skipped (data.skip_bad_lines)", rows_->skipped()));
    return {.step = step_, .loss = loss, .checkpoint = checkpoint_.value_or(fs::path())};
  }

 private:
  bool is_root() const { return world_.rank() == 0; }
  void Say(const std::string& line) const {
    if (is_root() && hooks_.log) hooks_.log(line);
  }

  // Everything up to the weights: folder, checkpoint to go on from, tokenizer, model, memory, data.
  void Prepare() {
    // First the lock: FindLatestValid removes what interrupted saves left, which must not be a save
    // that another process is making. Then cheap checks before long work: sizes and memory are
    // refused before data is read.
    lock_ = run::PrepareRunFolder(folder_, world_);
    checkpoint_ =
        run::FindLatestValid(world_, folder_, [&](const std::string& line) { Say(line); });
    if (config_.data.train_tokenizer_vocab > 0 && !checkpoint_)
      Say(fmt::format("training a tokenizer of {} pieces", config_.data.train_tokenizer_vocab));
    tokenizer_ = PrepareTokenizer(config_, checkpoint_, world_);
    model_ = PrepareModel(config_, checkpoint_, *tokenizer_);
    files_ = FilesBesideModel(config_, checkpoint_, *tokenizer_, model_);
    const MemoryWorkload question = MakeMemoryWorkload(config_, model_, mesh_.shape());
    Say(DescribeModel());
    Say("memory: about " + Describe(EstimateTraining(question)));
    RequireFits(question, dist::RanksOnThisNode(), UsableMemory());
    rows_ = OpenRows(config_, tokenizer_, world_, [&](const std::string& line) { Say(line); });
    const auto summary = rows_->summary();
    for (const std::string& note : summary.notes) Say("warning: " + note);
    Say(fmt::format("data: {}, {} training documents or pieces, {} held out{}",
                    CountOf(summary.files, "file"), summary.train_units, summary.held_out_units,
                    summary.tokens > 0 ? ", " + CountOf(summary.tokens, "token") : ""));
  }

  std::string DescribeModel() const {
    const dist::MeshShape& mesh = mesh_.shape();
    return fmt::format(
        "model: {} parameters, {}, width {}, vocabulary {}; {} of {} tokens a "
        "step on {} (dp {}, fsdp {}, tp {}, sp {})",
        ShortCount(static_cast<double>(model_.ParameterCount())),
        CountOf(model_.num_hidden_layers, "layer"), model_.hidden_size, model_.vocab_size,
        CountOf(config_.RowsPerBatch() * config_.optimizer.accumulate, "row"),
        config_.data.row_tokens, CountOf(world_.size(), "rank"), mesh.dp, mesh.fsdp, mesh.tp,
        mesh.sp);
  }

  // Bytes that all ranks of this machine may use together, including those already in use.
  double UsableMemory() {
    if (config_.train.memory_gib > 0) return config_.train.memory_gib * (int64_t{1} << 30);
    world_.Barrier();  // so that nobody has begun to allocate
    const auto taken = static_cast<double>(ResidentMemoryBytes()) * dist::RanksOnThisNode();
    return static_cast<double>(AvailableMemoryBytes()) + taken;
  }

  void LoadOrInit() {
    weights_ = std::make_unique<ShardedWeights>(model_, mesh_,
                                                checkpoint::ToScalarType(config_.train.dtype));
    optimizer_ = std::make_unique<AdamW>(*weights_, MakeAdamWOptions(config_.optimizer));
    if (checkpoint_) {
      Resume();
    } else {
      Say(config_.model.init.empty() ? "starting from random weights"
                                     : "starting from " + config_.model.init);
      InitWeights(config_, *weights_);
    }
    if (is_root()) {
      WriteFileAtomically(folder_ / "config.json", TrainConfigToJson(config_).dump(2) + "\n");
      data::WriteFiles(files_, folder_);
      // Steps after the checkpoint run again: StepLog drops their lines.
      metrics_ = std::make_unique<run::StepLog>(folder_ / "metrics.jsonl", step_, /*csv=*/true);
      evaluations_ = std::make_unique<run::StepLog>(folder_ / "eval.jsonl", step_);
      for (const auto* log : {metrics_.get(), evaluations_.get()})
        if (!log->damage().empty()) Say("warning: " + log->damage());
    }
  }

  void Resume() {
    const LoadedCheckpoint loaded = LoadCheckpoint(*checkpoint_, *weights_, *optimizer_);
    step_ = loaded.state.step;
    tokens_ = JsonGet<int64_t>(loaded.state.trainer, "tokens", checkpoint_->string());
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, !loaded.data_cursors.empty(), checkpoint_->string(),
                   " says nothing about where its data goes on");
    const Json before = loaded.state.trainer.value("config", Json::object());
    RequireTrainedTokenizer(before);
    if (!rows_->RestoreState(loaded.data_cursors.front()))  // all ranks read one stream
      Say("warning: the data has changed since the run was saved; it begins anew "
          "(data.allow_changed)");
    for (const std::string& line : run::ResumeLines(*checkpoint_, step_, config_.train.steps,
                                                    before, TrainConfigToJson(config_)))
      Say(line);
  }

  // A tokenizer is trained once; another size later on would be passed over in silence.
  void RequireTrainedTokenizer(const Json& before) const {
    const int64_t wanted = config_.data.train_tokenizer_vocab;
    const int64_t trained =
        before.value("data", Json::object()).value("train_tokenizer_vocab", wanted);
    LWM_REQUIRE(wanted == 0 || wanted == trained, "data.train_tokenizer_vocab is ", wanted,
                ", but the run in ", folder_.string(), " was begun with ",
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

  // One optimizer step; returns its loss. A global batch is dropped before the next is read.
  double TrainStep(run::RunClock& clock) {
    const double begin = MonotonicSeconds();
    run::StepMetrics metrics;
    double allowed_pairs = 0;
    int64_t tokens = 0;
    bool has_targets = false;
    // Gradients add up over `accumulate` global batches, each with this share of the step's loss.
    const double share = 1.0 / static_cast<double>(config_.optimizer.accumulate);
    for (int64_t i = 0; i < config_.optimizer.accumulate; ++i) {
      const GlobalBatch batch =
          TakeGlobalBatch([&] { return rows_->Next(); }, config_.RowsPerBatch(), mesh_.data_rank(),
                          mesh_.data_size());
      const Losses losses = AccumulateGradients(*weights_, batch, share, MakeStepOptions());
      metrics.loss += share * losses.loss;
      metrics.text_loss += share * losses.text_loss;
      metrics.vision_loss += share * losses.vision_loss;
      allowed_pairs += batch.allowed_pairs;
      tokens += batch.tokens;
      has_targets = has_targets || batch.has_targets;
    }
    if (!has_targets)
      Say(fmt::format("warning: step {} has no token to learn; its loss of 0 says nothing",
                      step_ + 1));
    metrics.lr = run::LearningRate(schedule_, step_);
    metrics.grad_norm =
        ApplyUpdate(*weights_, *optimizer_, metrics.lr, config_.optimizer.clip_norm);
    metrics.step = ++step_;
    metrics.tokens = tokens_ += tokens;
    const double seconds = MonotonicSeconds() - begin;
    metrics.tokens_per_s = static_cast<double>(tokens) / seconds;
    metrics.attention_tflops = run::AttentionFlops(allowed_pairs, model_.num_hidden_layers,
                                                   model_.num_attention_heads, model_.head_dim) /
                               seconds / 1e12;
    metrics.peak_gib = run::PeakGib(world_);
    clock.AddStep(seconds);
    if (is_root()) Log(metrics, clock);
    return metrics.loss;
  }

  void Log(const run::StepMetrics& metrics, const run::RunClock& clock) {
    metrics_->Append(run::ToJson(metrics));
    const int64_t left = config_.train.steps - step_;
    if (step_ % config_.train.log_every == 0 || left == 0)
      Say(run::ProgressLine(metrics, config_.train.steps, clock.SecondsLeft(left)));
  }

  bool IsDue(int64_t every, bool last) const { return last || (every > 0 && step_ % every == 0); }

  void AfterStep(bool last) {
    const config::TrainSection& train = config_.train;
    // Evaluation uses the weights in memory. Samples and images read the model back from its
    // folder, so the checkpoint comes before them.
    const bool evaluates = HasHeldOut() && IsDue(train.eval_every, last);
    const bool samples =
        hooks_.sample && !train.sample_prompt.empty() && IsDue(train.sample_every, last);
    const bool images =
        hooks_.images && config_.pictures.is_used() && IsDue(config_.pictures.every, last);
    Json line = {{"step", step_}};
    if (evaluates) line.update(EvaluateHeldOut());
    if (samples || images || IsDue(train.checkpoint_every, last)) Save();
    if (samples) WriteSample();
    if (images) line.update(WriteImages(last));
    if (!is_root()) return;
    if (line.size() > 1) evaluations_->Append(line);
    if (line.size() > 1) DrawLoss();  // with the measures, which came after the checkpoint
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
    Say(fmt::format("held out at step {}: loss {:.4f}, perplexity {:.2f}; by position{}", step_,
                    result.losses.loss, std::exp(result.token_loss), by_position));
    return ToJson(result, step_);
  }

  // Runs `work` on rank 0 while the others wait. Its failure must not end the run: a prompt that is
  // too long, a full disk or memory that is short for once costs a warning.
  void ShowOnRoot(const char* what, const std::function<void()>& work) {
    if (is_root()) {
      try {
        work();
      } catch (const std::exception& error) {
        const std::string text = error.what();  // LibTorch's go on with a stack
        Say(fmt::format("warning: no {} at step {}: {}", what, step_,
                        text.substr(0, text.find('\n'))));
      }
    }
    world_.Barrier();
  }

  // Measures on rank 0, nothing on the others.
  Json WriteImages(bool last) {
    Json measures = Json::object();
    ShowOnRoot("pictures", [&] {
      const fs::path folder = folder_ / "pictures";
      fs::create_directories(folder);
      measures = hooks_.images(*checkpoint_, folder / fmt::format("step_{}.png", step_), last);
      std::string text;
      for (const auto& [name, value] : measures.items())
        text += fmt::format("{} {} {}", text.empty() ? ":" : ",", name, value.dump());
      Say(fmt::format("images at step {}{}", step_, text));
    });
    return measures;
  }

  void Save() {
    CheckpointOptions options{
        .keep = config_.train.checkpoint_keep,
        .config = ModelConfigToJson(model_, "float32"),
        .extra_files = {},
        .warn = [&](const std::string& problem) { Say("warning: " + problem); }};
    for (const auto& [name, content] : files_) {
      const fs::path first = *fs::path(name).begin();  // a file, or the folder that holds it
      options.extra_files[first] = folder_ / first;
    }
    if (const fs::path vqgan = io::FindCheckpoint(config_.data.vqgan); !vqgan.empty())
      options.extra_files["vqgan"] = fs::is_directory(vqgan / "vqgan") ? vqgan / "vqgan" : vqgan;
    TrainerState state;
    state.step = step_;
    state.trainer = {{"tokens", tokens_}, {"config", TrainConfigToJson(config_)}};
    state.data_cursor = rows_->SaveState();
    checkpoint_ = SaveCheckpoint(folder_, options, state, *weights_, *optimizer_);
    Say(fmt::format("saved {}", checkpoint_->string()));
    if (is_root()) DrawLoss();
  }

  void WriteSample() {
    ShowOnRoot("sample", [&] {
      const std::string text = hooks_.sample(*checkpoint_);
      std::ofstream file(folder_ / "samples.txt", std::ios::app);
      file << "=== step " << step_ << "\n" << config_.train.sample_prompt << text << "\n\n";
      Say(fmt::format("sample at step {}:\n{}{}", step_, config_.train.sample_prompt, text));
    });
  }

  void DrawLoss() {
    const std::string problem = run::PlotCurves(folder_ / "loss.png", run::LossCurves(folder_),
                                                {.title = folder_.filename().string()});
    if (!problem.empty() && !plot_problem_said_) Say("warning: " + problem);
    plot_problem_said_ = plot_problem_said_ || !problem.empty();
  }

  const config::TrainConfig& config_;
  const fs::path folder_;
  std::unique_ptr<FolderLock> lock_;  // of it, on rank 0
  const TrainHooks& hooks_;
  dist::Communicator& world_;
  dist::Mesh mesh_;
  const run::Schedule schedule_;
  std::optional<fs::path> checkpoint_;  // the newest: resumed from, then saved
  std::shared_ptr<const data::Tokenizer> tokenizer_;
  config::ModelConfig model_;
  std::map<std::string, std::string> files_;  // beside the weights: name -> content
  std::unique_ptr<data::RowLoader> rows_;
  std::unique_ptr<ShardedWeights> weights_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<run::StepLog> metrics_, evaluations_;  // rank 0
  int64_t step_ = 0;                                     // done
  int64_t tokens_ = 0;
  bool plot_problem_said_ = false;
};

}  // namespace

TrainResult Train(const config::TrainConfig& config, dist::Communicator& world,
                  const TrainHooks& hooks) {
  return Run(config, world, hooks).Execute();
}

}  // namespace lwm::train
