#include "lwm/vision_train/vqgan_trainer.h"

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <vector>

#include "lwm/base/count_of.h"
#include "lwm/base/count_text.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/format.h"
#include "lwm/base/process.h"
#include "lwm/base/random.h"
#include "lwm/base/text.h"
#include "lwm/io/image_file.h"
#include "lwm/run/checkpoint_find.h"
#include "lwm/run/checkpoint_paths.h"
#include "lwm/run/metrics.h"
#include "lwm/run/plot.h"
#include "lwm/run/run_folder.h"
#include "lwm/vision_train/images.h"
#include "lwm/vision_train/learner.h"
#include "lwm/vision_train/measure.h"
#include "lwm/vision_train/vqgan_checkpoint.h"

namespace lwm::vision_train {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kImageStream = 21;

ImageSetOptions MakeImageOptions(const config::VqganTrainConfig& config) {
  const config::VqganDataSection& data = config.data;
  ImageSetOptions options;
  options.size = config.model.sizes.sample_size;
  options.held_out = data.held_out;
  options.skip_bad = data.skip_bad;
  for (size_t i = 0; i < data.train.size(); ++i)
    options.sources.push_back({.path = data.train[i],
                               .weight = data.weights.empty() ? 1.0 : data.weights[i],
                               .max_frames = data.max_frames,
                               .frames_per_second = data.frames_per_second});
  return options;
}

AugmentOptions MakeAugmentOptions(const config::VqganDataSection& data) {
  AugmentOptions options{.flip = data.flip,
                         .scale = data.scale,
                         .aspect = data.aspect,
                         .shift = data.shift,
                         .gamma = data.gamma,
                         .permute = data.permute};
  options.Validate();
  return options;
}

// One run from setup to its last checkpoint; every method is a phase and collective.
class Run {
 public:
  Run(const config::VqganTrainConfig& config, dist::Communicator& world, const run::RunHooks& hooks)
      : config_(config),
        folder_(config.train.run_folder),
        world_(world),
        hooks_(hooks),
        augment_(MakeAugmentOptions(config.data)) {}

  VqganTrainResult Execute() {
    Prepare();
    run::RunClock clock(config_.train.max_minutes, hooks_.stop);
    double loss = 0;
    auto end = run::EarlyEnd::kNo;
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
    return {.step = step_, .loss = loss, .checkpoint = checkpoint_.value_or(fs::path())};
  }

 private:
  bool is_root() const { return world_.rank() == 0; }
  void Say(const std::string& line) const {
    if (is_root() && hooks_.log) hooks_.log(line);
  }

  void Prepare() {
    LWM_REQUIRE(config_.train.batch >= world_.size(), "train.batch = ", config_.train.batch,
                ", want at least one image for each of ", CountOf(world_.size(), "rank"));
    lock_ = run::PrepareRunFolder(folder_, world_);
    checkpoint_ =
        run::FindLatestValid(world_, folder_, [&](const std::string& line) { Say(line); });
    images_ = std::make_unique<ImageSet>(MakeImageOptions(config_));
    learner_ = std::make_unique<Learner>(config_, world_);
    Describe();
    if (checkpoint_) Resume();
    if (!is_root()) return;
    WriteFileAtomically(folder_ / "config.json",
                        config::VqganTrainConfigToJson(config_).dump(2) + "\n");
    metrics_ = std::make_unique<run::StepLog>(folder_ / "metrics.jsonl", step_, /*csv=*/true);
    evaluations_ = std::make_unique<run::StepLog>(folder_ / "eval.jsonl", step_);
    for (const auto* log : {metrics_.get(), evaluations_.get()})
      if (!log->damage().empty()) Say("warning: " + log->damage());
    fs::create_directories(folder_ / "grids");
  }

  void Describe() const {
    const config::VqganConfig& sizes = config_.model.sizes;
    const int64_t side = sizes.sample_size / sizes.Reduction();
    Say(fmt::format("VQGAN: {} weights, {} x {} pixels to {} x {} codes of {}; {} a step on {}, {}",
                    ShortCount(static_cast<double>(sizes.ParameterCount())), sizes.sample_size,
                    sizes.sample_size, side, side, sizes.num_vq_embeddings,
                    CountOf(config_.train.batch, "image"), CountOf(world_.size(), "rank"),
                    config::NameOf(config_.train.dtype)));
    Say(fmt::format(
        "data: {} images and frames to train on, {} held out{}", images_->num_trained(),
        images_->num_held_out(),
        images_->skipped().empty()
            ? ""
            : Cat(", ", CountOf(static_cast<int64_t>(images_->skipped().size()), "file"),
                  " skipped")));
  }

  void Resume() {
    const LoadedVqganCheckpoint loaded = LoadVqganCheckpoint(*checkpoint_, *learner_);
    step_ = loaded.step;
    for (const std::string& line :
         run::ResumeLines(*checkpoint_, step_, config_.train.steps, loaded.settings,
                          config::VqganTrainConfigToJson(config_)))
      Say(line);
  }

  // Image i of step s is a function of the seed, s and i alone, whichever rank draws it.
  at::Tensor DrawImages(int64_t first, int64_t end) const {
    const uint64_t key =
        DeriveKey(DeriveKey(static_cast<uint64_t>(config_.train.seed), kImageStream),
                  static_cast<uint64_t>(step_));
    std::vector<at::Tensor> images;
    for (int64_t i = first; i < end; ++i) {
      Random random(DeriveKey(key, static_cast<uint64_t>(i)));
      images.push_back(images_->Batch(1, random, augment_));
    }
    return at::cat(images);
  }

  double TrainStep(run::RunClock& clock) {
    const double begin = MonotonicSeconds();
    const int64_t batch = config_.train.batch;
    // Parts differ by one image at most; Learner weighs them.
    const int64_t first = batch * world_.rank() / world_.size();
    const int64_t end = batch * (world_.rank() + 1) / world_.size();
    const StepOutcome outcome = learner_->Step(step_, DrawImages(first, end), first, batch);
    ++step_;
    revived_ += outcome.revived;
    const double seconds = MonotonicSeconds() - begin;
    clock.AddStep(seconds);
    const double peak_gib = run::PeakGib(world_);
    if (is_root()) Log(outcome, static_cast<double>(batch) / seconds, peak_gib, clock);
    return outcome.loss;
  }

  void Log(const StepOutcome& outcome, double rate, double peak_gib, const run::RunClock& clock) {
    metrics_->Append({{"step", step_},
                      {"pictures", step_ * config_.train.batch},
                      {"loss", outcome.loss},
                      {"l1", outcome.l1},
                      {"mse", outcome.mse},
                      {"commitment", outcome.commitment},
                      {"perceptual", outcome.perceptual},
                      {"adversarial", outcome.adversarial},
                      {"discriminator", outcome.discriminator},
                      {"lr", outcome.lr},
                      {"grad_norm", outcome.grad_norm},
                      {"codes_in_batch", outcome.codes_used},
                      {"revived", outcome.revived},
                      {"pictures_per_s", rate},
                      {"peak_gib", peak_gib}});
    const int64_t left = config_.train.steps - step_;
    if (step_ % config_.train.log_every != 0 && left > 0) return;
    Say(
        fmt::format("step {}/{}  loss {:.4f}  L1 {:.4f}  {} revived  {:.0f} pictures/s  {} left  "
                    "{:.2f} GiB",
                    step_, config_.train.steps, outcome.loss, outcome.l1, revived_,
                    static_cast<double>(config_.train.batch) / clock.step_seconds(),
                    FormatDuration(clock.SecondsLeft(left)), peak_gib));
    revived_ = 0;
  }

  bool IsDue(int64_t every, bool last) const { return last || (every > 0 && step_ % every == 0); }

  void AfterStep(bool last) {
    const bool draws = IsDue(config_.train.grid_every, last);
    const bool measures = draws || IsDue(config_.train.eval_every, last);
    if (measures) MeasureHeldOut(draws);
    if (IsDue(config_.train.checkpoint_every, last))
      Save();
    else if (measures && is_root())
      DrawCurves();
  }

  void Save() {
    checkpoint_ =
        SaveVqganCheckpoint(world_, folder_, step_, config_.train.checkpoint_keep,
                            config::VqganTrainConfigToJson(config_), *learner_,
                            [&](const std::string& problem) { Say("warning: " + problem); });
    Say("saved " + checkpoint_->string());
    if (is_root()) DrawCurves();
  }

  // Rank 0 measures while the others wait.
  void MeasureHeldOut(bool draws) {
    if (is_root() && images_->num_held_out() > 0) {
      // Averaged weights in f32, as they are exported.
      const vision::Vqgan vqgan(learner_->sizes(), learner_->Averaged(), at::kFloat);
      const at::Tensor images_NHWC = images_->HeldOut();
      const Reconstruction result = Measure(vqgan, images_NHWC);
      Json line = ToJson(result);
      line["step"] = step_;
      evaluations_->Append(line);
      Say(fmt::format(
          "held out at step {}: PSNR {:.2f} dB, {:+.2f} over box averages, SSIM {:.3f}, "
          "{:.0f} % of codes used, perplexity {:.0f}",
          step_, result.psnr_db, result.gain_db(), result.ssim, 100 * result.used_share,
          result.perplexity));
      if (draws) DrawGrid(images_NHWC, result);
    }
    world_.Barrier();
  }

  // Its failure must not end the run.
  void DrawGrid(const at::Tensor& images_NHWC, const Reconstruction& result) {
    try {
      io::WritePng(
          folder_ / "grids" / fmt::format("step_{}.png", step_),
          ReconstructionGrid(images_NHWC, result.output_NHWC, config_.train.grid_pictures));
    } catch (const Error& error) {
      Say(fmt::format("warning: no grid at step {}: {}", step_, error.what()));
    }
  }

  void DrawCurves() {
    run::Curve psnr = run::CurveOf(folder_ / "eval.jsonl", "psnr_db", "held out");
    run::Curve box = run::CurveOf(folder_ / "eval.jsonl", "box_psnr_db", "box averages");
    const std::string title = folder_.filename().string();
    std::string problem = run::PlotCurves(folder_ / "loss.png", run::LossCurves(folder_),
                                          {.title = title, .y = "loss"});
    if (problem.empty() && !psnr.points.empty())
      problem = run::PlotCurves(folder_ / "psnr.png", {psnr, box},
                                {.title = title, .y = "PSNR, dB", .falls = false});
    if (!problem.empty() && !plot_problem_said_) Say("warning: " + problem);
    plot_problem_said_ = plot_problem_said_ || !problem.empty();
  }

  const config::VqganTrainConfig& config_;
  const fs::path folder_;
  std::unique_ptr<FolderLock> lock_;  // of it, on rank 0
  dist::Communicator& world_;
  const run::RunHooks& hooks_;
  const AugmentOptions augment_;
  std::optional<fs::path> checkpoint_;  // the newest: resumed from, then saved
  std::unique_ptr<ImageSet> images_;
  std::unique_ptr<Learner> learner_;
  std::unique_ptr<run::StepLog> metrics_, evaluations_;  // rank 0
  int64_t step_ = 0;                                     // done
  int64_t revived_ = 0;                                  // since the last line
  bool plot_problem_said_ = false;
};

}  // namespace

VqganTrainResult TrainVqgan(const config::VqganTrainConfig& config, dist::Communicator& world,
                            const run::RunHooks& hooks) {
  return Run(config, world, hooks).Execute();
}

}  // namespace lwm::vision_train
