#include "lwm/vision_train/vqgan_trainer.h"

#include <ATen/ATen.h>

#include <memory>
#include <utility>
#include <vector>

#include "lwm/base/count_of.h"
#include "lwm/base/count_text.h"
#include "lwm/base/error.h"
#include "lwm/base/format.h"
#include "lwm/base/random.h"
#include "lwm/base/text.h"
#include "lwm/io/image_file.h"
#include "lwm/run/plot.h"
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

// Every method is a phase and collective.
class Run final : public run::TrainingRun {
 public:
  Run(const config::VqganTrainConfig& config, dist::Communicator& world, const run::RunHooks& hooks)
      : TrainingRun(config.train, config::VqganTrainConfigToJson(config), world, hooks),
        config_(config),
        augment_(MakeAugmentOptions(config.data)) {
    LWM_REQUIRE(config.train.batch >= world.size(), "train.batch = ", config.train.batch,
                ", want at least one image for each of ", CountOf(world.size(), "rank"));
  }

 private:
  void Prepare() override {
    images_ = std::make_unique<ImageSet>(MakeImageOptions(config_));
    learner_ = std::make_unique<Learner>(config_, world());
    Describe();
    if (checkpoint()) {
      const LoadedVqganCheckpoint loaded = LoadVqganCheckpoint(*checkpoint(), *learner_);
      GoOn(loaded.step, loaded.settings);
    }
    if (is_root()) fs::create_directories(folder() / "grids");
  }

  void Describe() const {
    const config::VqganConfig& sizes = config_.model.sizes;
    const int64_t side = sizes.sample_size / sizes.Reduction();
    Say(fmt::format("VQGAN: {} weights, {} x {} pixels to {} x {} codes of {}; {} a step on {}, {}",
                    ShortCount(static_cast<double>(sizes.ParameterCount())), sizes.sample_size,
                    sizes.sample_size, side, side, sizes.num_vq_embeddings,
                    CountOf(config_.train.batch, "image"), CountOf(world().size(), "rank"),
                    config::NameOf(config_.train.dtype)));
    Say(fmt::format(
        "data: {} images and frames to train on, {} held out{}", images_->num_trained(),
        images_->num_held_out(),
        images_->skipped().empty()
            ? ""
            : Cat(", ", CountOf(static_cast<int64_t>(images_->skipped().size()), "file"),
                  " skipped")));
  }

  // Image i of step s is a function of the seed, s and i alone, whichever rank draws it.
  at::Tensor DrawImages(int64_t first, int64_t end) const {
    const uint64_t key =
        DeriveKey(DeriveKey(static_cast<uint64_t>(config_.train.seed), kImageStream),
                  static_cast<uint64_t>(step()));
    std::vector<at::Tensor> images;
    for (int64_t i = first; i < end; ++i) {
      Random random(DeriveKey(key, static_cast<uint64_t>(i)));
      images.push_back(images_->Batch(1, random, augment_));
    }
    return at::cat(images);
  }

  double Step() override {
    const int64_t batch = config_.train.batch;
    // Parts differ by one image at most; Learner weighs them.
    const int64_t first = batch * world().rank() / world().size();
    const int64_t end = batch * (world().rank() + 1) / world().size();
    outcome_ = learner_->Step(step(), DrawImages(first, end), first, batch);
    revived_ += outcome_.revived;
    return outcome_.loss;
  }

  Json Metrics(const run::StepCost& cost) override {
    const int64_t batch = config_.train.batch;
    return {{"step", step()},
            {"pictures", step() * batch},
            {"loss", outcome_.loss},
            {"l1", outcome_.l1},
            {"mse", outcome_.mse},
            {"commitment", outcome_.commitment},
            {"perceptual", outcome_.perceptual},
            {"adversarial", outcome_.adversarial},
            {"discriminator", outcome_.discriminator},
            {"lr", outcome_.lr},
            {"grad_norm", outcome_.grad_norm},
            {"codes_in_batch", outcome_.codes_used},
            {"revived", outcome_.revived},
            {"pictures_per_s", static_cast<double>(batch) / cost.seconds},
            {"peak_gib", cost.peak_gib}};
  }

  std::string ProgressLine(const run::StepCost& cost) override {
    const int64_t revived = std::exchange(revived_, 0);
    return fmt::format(
        "step {}/{}  loss {:.4f}  L1 {:.4f}  {} revived  {:.0f} pictures/s  {} left  {:.2f} GiB",
        step(), config_.train.steps, outcome_.loss, outcome_.l1, revived,
        static_cast<double>(config_.train.batch) / cost.mean_seconds,
        FormatDuration(cost.seconds_left), cost.peak_gib);
  }

  void AfterStep(bool last) override {
    const bool draws = IsDue(config_.train.grid_every, last);
    const bool measures = draws || IsDue(config_.train.eval_every, last);
    if (measures) MeasureHeldOut(draws);
    if (IsDue(config_.train.checkpoint_every, last))
      Save();
    else if (measures && is_root())
      UpdateCurves();
  }

  fs::path WriteCheckpoint() override {
    return SaveVqganCheckpoint(world(), folder(), step(), config_.train.checkpoint_keep, settings(),
                               *learner_, [&](const std::string& problem) { Warn(problem); });
  }

  // Rank 0 measures while the others wait.
  void MeasureHeldOut(bool draws) {
    if (is_root() && images_->num_held_out() > 0) {
      // Averaged weights in f32, as they are exported.
      const vision::Vqgan vqgan(learner_->sizes(), learner_->Averaged(), at::kFloat);
      const at::Tensor images_NHWC = images_->HeldOut();
      const Reconstruction result = Measure(vqgan, images_NHWC);
      Json line = ToJson(result);
      line["step"] = step();
      LogEvaluation(line);
      Say(fmt::format(
          "held out at step {}: PSNR {:.2f} dB, {:+.2f} over box averages, SSIM {:.3f}, "
          "{:.0f} % of codes used, perplexity {:.0f}",
          step(), result.psnr_db, result.gain_db(), result.ssim, 100 * result.used_share,
          result.perplexity));
      if (draws)
        Attempt("grid", [&] {
          io::WritePng(
              folder() / "grids" / fmt::format("step_{}.png", step()),
              ReconstructionGrid(images_NHWC, result.output_NHWC, config_.train.grid_pictures));
        });
    }
    world().Barrier();
  }

  std::string DrawCurves() override {
    const run::Curve psnr = run::CurveOf(folder() / "eval.jsonl", "psnr_db", "held out");
    const run::Curve box = run::CurveOf(folder() / "eval.jsonl", "box_psnr_db", "box averages");
    const std::string title = folder().filename().string();
    const std::string problem = run::PlotCurves(folder() / "loss.png", run::LossCurves(folder()),
                                                {.title = title, .y = "loss"});
    if (!problem.empty() || psnr.points.empty()) return problem;
    return run::PlotCurves(folder() / "psnr.png", {psnr, box},
                           {.title = title, .y = "PSNR, dB", .falls = false});
  }

  const config::VqganTrainConfig& config_;
  const AugmentOptions augment_;
  std::unique_ptr<ImageSet> images_;
  std::unique_ptr<Learner> learner_;
  StepOutcome outcome_;  // of the last step
  int64_t revived_ = 0;  // since the last line
};

}  // namespace

run::RunResult TrainVqgan(const config::VqganTrainConfig& config, dist::Communicator& world,
                          const run::RunHooks& hooks) {
  return Run(config, world, hooks).Execute();
}

}  // namespace lwm::vision_train
