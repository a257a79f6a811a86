#include "lwm/vision_train/learner.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/dist/communicator.h"
#include "lwm/testing/synthetic_images.h"
#include "lwm/vision_train/measure.h"
#include "lwm/vision_train/objective.h"

namespace lwm::vision_train {
namespace {

using testing::SyntheticImages;

// 16 x 16 pixels to 4 x 4 codes.
config::VqganTrainConfig SmallRecipe() {
  config::VqganTrainConfig config;
  config.model.sizes.block_out_channels = {16, 16};
  config.model.sizes.layers_per_block = 1;
  config.model.sizes.latent_channels = 8;
  config.model.sizes.vq_embed_dim = 8;
  config.model.sizes.num_vq_embeddings = 64;
  config.model.sizes.norm_num_groups = 4;
  config.model.sizes.sample_size = 16;
  config.model.sizes.space_to_depth = 2;
  config.train.run_folder = "unused";
  config.train.steps = 160;
  config.train.dtype = config::Dtype::kF32;
  config.optimizer.lr = 2e-3;
  config.optimizer.warmup_steps = 10;
  config.data.train = {"unused"};
  config.Validate();
  return config;
}

// The whole objective as the definition has it, in f64: the straight-through step is a constant
// added to the latents, and what is cut from the graph are constants too.
class ObjectiveTest : public ::testing::Test {
 protected:
  ObjectiveTest() {
    at::manual_seed(7);
    config::VqganConfig sizes = recipe_.model.sizes;
    sizes.block_out_channels = {4, 8};
    sizes.norm_num_groups = 2;
    sizes.num_vq_embeddings = 12;
    recipe_.model.sizes = sizes;
    recipe_.codebook.update = "loss";
    recipe_.loss.mse = 0.7;
    recipe_.loss.perceptual = 0.3;
    weights_ = vision::RandomVqganWeights(sizes, 3);
    vision::ForEachWeight(sizes, weights_, [&](const vision::VqganSpec& spec, at::Tensor& weight) {
      weight = weight.to(at::kDouble);
      if (weight.dim() == 2) weight = at::randn(weight.sizes(), at::kDouble) * 0.3;
      weight.set_requires_grad(true);
      leaves_.emplace_back(spec.name, weight);
    });
    features_ = FeatureNet::Random({3, 4}, 5, at::kDouble);
    images_NHWC_ = SyntheticImages(2, 8, 9).to(at::kDouble);
  }

  Pass Run(bool quantise) {
    const vision::Vqgan vqgan(recipe_.model.sizes, weights_, at::kDouble);
    return RunPass(vqgan, weights_.codebook_VC, images_NHWC_, quantise, recipe_.loss,
                   recipe_.codebook, [&](const at::Tensor& a_NHWC, const at::Tensor& b_NHWC) {
                     return features_->Distance(a_NHWC, b_NHWC);
                   });
  }

  double Definition(const Pass& base, bool quantise) {
    c10::NoGradGuard no_grad;
    const vision::Vqgan vqgan(recipe_.model.sizes, weights_, at::kDouble);
    const at::Tensor z = vqgan.Latents(images_NHWC_);
    at::Tensor latents = z;
    double codes = 0;
    if (quantise) {
      const at::Tensor row = weights_.codebook_VC.index_select(0, base.code_R).view(z.sizes());
      latents = z + (base_row_ - base.z_NhwC);
      codes = 0.25 * (z - base_row_).square().mean().item<double>() +
              (row - base.z_NhwC).square().mean().item<double>();
    }
    const at::Tensor error = vqgan.DecodeLatents(latents) - images_NHWC_;
    const at::Tensor perceptual = features_->Distance(images_NHWC_, error + images_NHWC_).mean();
    return error.abs().mean().item<double>() + 0.7 * error.square().mean().item<double>() +
           0.3 * perceptual.item<double>() + codes;
  }

  void ExpectGradients(bool quantise) {
    const Pass base = Run(quantise);
    if (quantise)
      base_row_ = weights_.codebook_VC.detach()
                      .index_select(0, base.code_R)
                      .view(base.z_NhwC.sizes())
                      .clone();
    EXPECT_NEAR(base.loss.item<double>(), Definition(base, quantise), 1e-12);
    base.loss.backward();
    for (auto& [name, leaf] : leaves_) {
      if (!quantise && name == "quantize.embedding.weight") continue;
      ASSERT_TRUE(leaf.grad().defined()) << name;
      const at::Tensor flat = leaf.detach().view({-1}), gradient = leaf.grad().reshape({-1});
      for (int64_t i = 0; i < flat.numel(); i += std::max<int64_t>(1, flat.numel() / 3)) {
        constexpr double kStep = 1e-6;
        const double value = flat[i].item<double>();
        flat[i].fill_(value + kStep);
        const double above = Definition(base, quantise);
        flat[i].fill_(value - kStep);
        const double below = Definition(base, quantise);
        flat[i].fill_(value);
        EXPECT_NEAR(gradient[i].item<double>(), (above - below) / (2 * kStep), 2e-7)
            << name << " element " << i;
      }
    }
  }

  config::VqganTrainConfig recipe_ = SmallRecipe();
  vision::VqganWeights weights_;
  std::vector<std::pair<std::string, at::Tensor>> leaves_;
  std::optional<FeatureNet> features_;
  at::Tensor images_NHWC_, base_row_;
};

TEST_F(ObjectiveTest, GradientsMatchFiniteDifferencesOfTheDefinition) { ExpectGradients(true); }

TEST_F(ObjectiveTest, GradientsWithoutQuantisingMatchToo) { ExpectGradients(false); }

class LearnerTest : public ::testing::Test {
 protected:
  // Trains on fresh images and measures on others.
  Reconstruction Train(const config::VqganTrainConfig& config) {
    Learner learner(config, *world_);
    for (int64_t step = 0; step < config.train.steps; ++step)
      learner.Step(step, SyntheticImages(8, 16, 1000 + static_cast<uint64_t>(step)), 0, 8);
    const vision::Vqgan vqgan(learner.sizes(), learner.Averaged(), at::kFloat);
    return Measure(vqgan, SyntheticImages(48, 16, 5));
  }

  std::unique_ptr<dist::Communicator> world_ = dist::MakeSelfCommunicator();
};

TEST_F(LearnerTest, CodesCollapseWithoutWarmupAndRevivalAndNotWithThem) {
  config::VqganTrainConfig recipe = SmallRecipe();
  recipe.model.sizes.num_vq_embeddings = 128;
  recipe.train.steps = 120;
  const Reconstruction good = Train(recipe);
  config::VqganTrainConfig control = recipe;
  control.codebook.update = "loss";
  control.codebook.start = "uniform";
  control.codebook.warmup = 0;
  control.codebook.revive_every = 0;
  const Reconstruction bad = Train(control);
  EXPECT_LT(bad.used_share, 0.1) << bad.psnr_db << " dB, perplexity " << bad.perplexity;
  EXPECT_GT(good.used_share, 0.8) << good.psnr_db << " dB, perplexity " << good.perplexity;
  EXPECT_GT(good.perplexity, 10 * bad.perplexity);
}

TEST_F(LearnerTest, StateCarriesARunOnBitForBit) {
  config::VqganTrainConfig config = SmallRecipe();
  config.loss.adversarial = 0.5;
  config.loss.adversarial_start = 3;
  config.loss.perceptual = 0.1;
  config.loss.discriminator_channels = 8;
  config.loss.discriminator_layers = 1;
  for (const int64_t stop : {2, 6}) {  // in the warm-up and after it
    Learner whole(config, *world_), part(config, *world_), resumed(config, *world_);
    std::map<std::string, at::Tensor> stored;
    for (int64_t step = 0; step < 9; ++step) {
      const at::Tensor images = SyntheticImages(4, 16, static_cast<uint64_t>(step));
      whole.Step(step, images, 0, 4);
      if (step < stop) part.Step(step, images, 0, 4);
      if (step == stop) {
        for (const auto& [name, tensor] : part.State()) stored[name] = tensor.clone();
        resumed.LoadState(stored, stop, "test");
      }
      if (step >= stop) resumed.Step(step, images, 0, 4);
    }
    const auto expected = whole.State(), actual = resumed.State();
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_TRUE(at::equal(expected[i].second, actual[i].second))
          << expected[i].first << " after a stop at " << stop;
  }
}

TEST_F(LearnerTest, AStateOfAnotherModelIsRefusedByName) {
  Learner small(SmallRecipe(), *world_);
  config::VqganTrainConfig wider = SmallRecipe();
  wider.model.sizes.block_out_channels = {16, 32};
  Learner other(wider, *world_);
  std::map<std::string, at::Tensor> stored;
  for (const auto& [name, tensor] : other.State()) stored[name] = tensor;
  try {
    small.LoadState(stored, 1, "state.safetensors");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("flat.value"), std::string::npos);
  }
}

TEST_F(LearnerTest, Bf16FollowsF32) {
  config::VqganTrainConfig config = SmallRecipe();
  config.train.steps = 40;
  const Reconstruction f32 = Train(config);
  config.train.dtype = config::Dtype::kBF16;
  EXPECT_NEAR(Train(config).psnr_db, f32.psnr_db, 1.0);
}

TEST_F(LearnerTest, DivergedTrainingIsSaid) {
  config::VqganTrainConfig config = SmallRecipe();
  Learner learner(config, *world_);
  learner.State()[0].second.fill_(1e30);
  try {
    learner.Step(0, SyntheticImages(2, 16, 1), 0, 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);  // not wrong usage
    EXPECT_NE(std::string(error.what()).find("diverged"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace lwm::vision_train
