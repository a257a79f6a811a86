#include "lwm/vision_train/vqgan_trainer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/io/image_file.h"
#include "lwm/run/metrics.h"
#include "lwm/testing/synthetic_images.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/vision/frames.h"
#include "lwm/vision_train/measure.h"

namespace lwm::vision_train {
namespace {

namespace fs = std::filesystem;

class VqganTrainerTest : public ::testing::Test {
 protected:
  VqganTrainerTest() {
    fs::create_directories(folder_ / "pictures");
    const auto frames = vision::FramesOfTensor(testing::SyntheticImages(24, 32, 3));
    for (size_t i = 0; i < frames.size(); ++i)
      io::WritePng(folder_ / "pictures" / Cat(i + 100, ".png"), frames[i]);
    WriteFileAtomically(folder_ / "held_out.txt", "103.png\n117.png\n");
  }

  config::VqganTrainConfig Recipe(const std::string& run,
                                  const std::vector<std::string>& overrides = {}) const {
    const std::string recipe = Cat(R"(
[model]
block_out_channels = [8, 8]
layers_per_block = 1
latent_channels = 4
vq_embed_dim = 4
num_vq_embeddings = 16
norm_num_groups = 2
sample_size = 16
space_to_depth = 2
[data]
train = [")",
                                   (folder_ / "pictures").string(), R"("]
held_out = ")",
                                   (folder_ / "held_out.txt").string(), R"("
[codebook]
warmup = 0.25
[optimizer]
lr = 1e-3
[train]
run_folder = ")",
                                   (folder_ / run).string(), R"("
steps = 12
batch = 4
dtype = "f32"
checkpoint_every = 2
checkpoint_keep = 20
)");
    return config::ParseVqganTrainConfig(recipe, "test.toml", overrides);
  }

  run::RunResult Train(const config::VqganTrainConfig& config,
                       const std::function<bool()>& stop = {}) {
    lines_.clear();
    return TrainVqgan(
        config, *world_,
        {.log = [&](const std::string& line) { lines_ += line + "\n"; }, .stop = stop});
  }

  std::string StateOf(const std::string& run, int64_t step) const {
    return ReadFile(folder_ / run / "checkpoints" / Cat("step_", step) /
                    "training/state.safetensors");
  }

  testing_support::TemporaryFolder folder_;
  std::unique_ptr<dist::Communicator> world_ = dist::MakeSelfCommunicator();
  std::string lines_;
};

TEST_F(VqganTrainerTest, ARunLeavesItsModelCurvesAndGrid) {
  const run::RunResult result = Train(Recipe("run"));
  EXPECT_EQ(result.step, 12);
  const fs::path run = folder_ / "run";
  const auto metrics = run::ReadStepLog(run / "metrics.jsonl");
  ASSERT_EQ(metrics.size(), 12u);
  EXPECT_EQ(metrics.back().at("loss").get<double>(), result.loss);
  EXPECT_TRUE(fs::exists(run / "grids/step_12.png"));
  const auto evaluations = run::ReadStepLog(run / "eval.jsonl");
  ASSERT_EQ(evaluations.size(), 1u);
  // The exported model is the one that was measured.
  const vision::Vqgan vqgan = checkpoint::LoadVqgan(run / "model", at::kFloat);
  EXPECT_EQ(vqgan.config().space_to_depth, 2);
  const auto held_out = {io::ReadImage(folder_ / "pictures/103.png"),
                         io::ReadImage(folder_ / "pictures/117.png")};
  const at::Tensor images_NHWC =
      at::avg_pool2d(vision::TensorOfFrames(held_out).permute({0, 3, 1, 2}), {2, 2})
          .permute({0, 2, 3, 1});
  EXPECT_NEAR(Measure(vqgan, images_NHWC).psnr_db, evaluations[0].at("psnr_db").get<double>(),
              0.02);
}

TEST_F(VqganTrainerTest, AnInterruptedRunGoesOnBitForBit) {
  Train(Recipe("run"));
  for (const int64_t stop : {2, 6}) {  // in the warm-up and after it
    const fs::path again = folder_ / Cat("again_", stop);
    fs::copy(folder_ / "run", again, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    for (int64_t step = stop + 2; step <= 12; step += 2)
      fs::remove_all(again / "checkpoints" / Cat("step_", step));
    // The remains of a save that was killed.
    fs::create_directories(again / "checkpoints/.writing_step_8/training");
    Train(Recipe(Cat("again_", stop)));
    EXPECT_NE(lines_.find("resuming"), std::string::npos);
    EXPECT_EQ(StateOf(Cat("again_", stop), 12), StateOf("run", 12)) << stop;
    EXPECT_FALSE(fs::exists(again / "checkpoints/.writing_step_8"));
    EXPECT_EQ(run::ReadStepLog(again / "metrics.jsonl").size(), 12u);
  }
}

TEST_F(VqganTrainerTest, ARunThatIsAskedToStopSavesAndGoesOnBitForBit) {
  const std::vector<std::string> overrides = {"train.checkpoint_every=0"};
  Train(Recipe("run", overrides));
  int steps = 0;
  const auto result = Train(Recipe("asked", overrides), [&] { return ++steps == 5; });
  EXPECT_EQ(result.step, 5);
  EXPECT_NE(lines_.find("(as asked) at step 5"), std::string::npos) << lines_;
  EXPECT_FALSE(fs::exists(folder_ / "asked/eval.jsonl") &&
               fs::file_size(folder_ / "asked/eval.jsonl") > 0);
  EXPECT_EQ(Train(Recipe("asked", overrides)).step, 12);
  EXPECT_NE(lines_.find("step_5: step 5 of 12"), std::string::npos) << lines_;
  EXPECT_EQ(StateOf("asked", 12), StateOf("run", 12));
}

TEST_F(VqganTrainerTest, ADamagedCheckpointIsPassedOver) {
  Train(Recipe("run"));
  const std::string last = StateOf("run", 12);
  const fs::path state = folder_ / "run/checkpoints/step_12/training/state.safetensors";
  fs::resize_file(state, last.size() - 1);
  Train(Recipe("run"));
  EXPECT_NE(lines_.find("is damaged"), std::string::npos);
  EXPECT_NE(lines_.find("step_10: step 10 of 12"), std::string::npos);
  EXPECT_EQ(StateOf("run", 12), last);
}

TEST_F(VqganTrainerTest, AGridThatCannotBeWrittenDoesNotEndTheRun) {
  fs::create_directories(folder_ / "run/grids/step_12.png/in the way");
  EXPECT_EQ(Train(Recipe("run")).step, 12);
  EXPECT_NE(lines_.find("warning: no grid at step 12: "), std::string::npos) << lines_;
}

TEST_F(VqganTrainerTest, OldCheckpointsGo) {
  Train(Recipe("run", {"train.checkpoint_keep=2"}));
  EXPECT_FALSE(fs::exists(folder_ / "run/checkpoints/step_8"));
  EXPECT_TRUE(fs::exists(folder_ / "run/checkpoints/step_10"));
}

TEST_F(VqganTrainerTest, BadRecipesAreRefusedByName) {
  const auto message = [&](const std::vector<std::string>& overrides) -> std::string {
    try {
      Train(Recipe("bad", overrides));
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_NE(message({"data.train=[\"/nowhere/x\"]"}).find("/nowhere/x"), std::string::npos);
  EXPECT_NE(message({"data.held_out=/nowhere.txt"}).find("/nowhere.txt"), std::string::npos);
  EXPECT_NE(message({"data.aspect=0.5"}).find("aspect"), std::string::npos);
  EXPECT_NE(message({"model.num_vq_embeddings=500", "train.steps=4", "train.batch=1"})
                .find("codebook.warmup"),
            std::string::npos);
}

}  // namespace
}  // namespace lwm::vision_train
