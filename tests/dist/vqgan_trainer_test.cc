// Ranks share a batch of images: weights and codebook must not depend on how many they are.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/config/vqgan_train_config.h"
#include "lwm/testing/synthetic_images.h"
#include "lwm/vision_train/learner.h"
#include "tests/dist/mpi_main.h"

namespace lwm::vision_train {
namespace {

using lwm::testing::World;

config::VqganTrainConfig SmallRecipe() {
  config::VqganTrainConfig config;
  config::VqganConfig& sizes = config.model.sizes;
  sizes.block_out_channels = {8, 8};
  sizes.layers_per_block = 1;
  sizes.latent_channels = sizes.vq_embed_dim = 4;
  sizes.num_vq_embeddings = 32;
  sizes.norm_num_groups = 2;
  sizes.sample_size = 16;
  sizes.space_to_depth = 2;
  config.train.steps = 60;
  config.train.dtype = config::Dtype::kF32;
  config.codebook.warmup = 0.05;
  config.codebook.revive_every = 4;
  config.optimizer.lr = 1e-3;
  return config;
}

struct Trained {
  std::vector<double> losses;
  at::Tensor weights_n, codebook_VC;
};

Trained Train(const config::VqganTrainConfig& config, dist::Communicator& world, int64_t steps) {
  constexpr int64_t kBatch = 7;  // does not divide by 2, 3 or 4
  Learner learner(config, world);
  Trained trained;
  const int64_t first = kBatch * world.rank() / world.size();
  const int64_t end = kBatch * (world.rank() + 1) / world.size();
  for (int64_t step = 0; step < steps; ++step) {
    const at::Tensor images_NHWC =
        testing::SyntheticImages(kBatch, 16, 50 + static_cast<uint64_t>(step));
    trained.losses.push_back(
        learner.Step(step, images_NHWC.narrow(0, first, end - first), first, kBatch).loss);
  }
  const auto state = learner.State();
  trained.weights_n = state[0].second.clone();
  trained.codebook_VC = state[4].second.clone();
  return trained;
}

void ExpectSameOnAnyNumberOfRanks(const config::VqganTrainConfig& config, int64_t steps) {
  const auto alone = dist::MakeSelfCommunicator();
  const Trained one = Train(config, *alone, steps), all = Train(config, World(), steps);
  for (size_t i = 0; i < one.losses.size(); ++i)
    EXPECT_NEAR(all.losses[i], one.losses[i], 1e-4 * one.losses[i]) << "step " << i;
  EXPECT_LT((all.weights_n - one.weights_n).abs().max().item<double>(), 2e-3);
  // All ranks hold the same bits.
  for (const at::Tensor& tensor : {all.weights_n, all.codebook_VC}) {
    const at::Tensor first = tensor.clone();
    World().Broadcast({static_cast<std::byte*>(first.data_ptr()), first.nbytes()}, 0);
    EXPECT_TRUE(at::equal(first, tensor));
  }
}

TEST(VqganTrainerDistTest, LossesAndCodebookAreThoseOfOneRank) {
  ExpectSameOnAnyNumberOfRanks(SmallRecipe(), 14);
}

TEST(VqganTrainerDistTest, SoTheyAreWithADiscriminatorAndFeatures) {
  config::VqganTrainConfig config = SmallRecipe();
  config.loss.perceptual = 0.2;
  config.loss.adversarial = 0.5;
  config.loss.adversarial_start = 2;
  config.loss.discriminator_channels = 8;
  config.loss.discriminator_layers = 1;
  ExpectSameOnAnyNumberOfRanks(config, 6);
}

}  // namespace
}  // namespace lwm::vision_train
