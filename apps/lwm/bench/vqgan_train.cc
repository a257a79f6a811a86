// lwm bench vqgan-train: optimizer steps of the VQGAN of recipes/vqgan-clipart.toml.
#include <ATen/ATen.h>

#include <algorithm>
#include <memory>

#include "bench/bench.h"
#include "commands/vqgan.h"
#include "lwm/base/process.h"
#include "lwm/vision_train/learner.h"

namespace lwm::app {
namespace {

struct VqganTrainBenchFlags {
  std::string recipe;
  int64_t batch = 8, steps = 20;
};

// The sizes of the recipe that is shipped.
config::VqganTrainConfig DefaultRecipe() {
  config::VqganTrainConfig config;
  config::VqganConfig& sizes = config.model.sizes;
  sizes.block_out_channels = {64, 128};
  sizes.layers_per_block = 1;
  sizes.latent_channels = sizes.vq_embed_dim = 16;
  sizes.num_vq_embeddings = 512;
  sizes.norm_num_groups = 8;
  sizes.sample_size = 64;
  sizes.space_to_depth = 4;
  config.codebook.start = "uniform";
  config.codebook.warmup = 0;
  return config;
}

Json Measure(RunContext& context, const VqganTrainBenchFlags& flags, const RunFlags& run) {
  config::VqganTrainConfig config =
      flags.recipe.empty() ? DefaultRecipe() : config::ReadVqganTrainConfig(flags.recipe, {});
  config.train.dtype = run.dtype;
  config.train.seed = static_cast<int64_t>(run.seed);
  config.train.steps = 1 << 20;
  dist::Communicator& world = context.world();
  vision_train::Learner learner(config, world);
  const int64_t side = config.model.sizes.sample_size;
  const int64_t first = flags.batch * world.rank() / world.size();
  const int64_t end = flags.batch * (world.rank() + 1) / world.size();
  at::manual_seed(run.seed);
  const at::Tensor images_NHWC =
      at::rand({flags.batch, side, side, 3}).mul_(2).sub_(1).narrow(0, first, end - first);
  double best = 1e9, loss = 0;
  int64_t step = 0;
  for (int round = 0; round < 4; ++round) {  // the first warms up
    world.Barrier();
    const double start = MonotonicSeconds();
    for (int64_t i = 0; i < flags.steps; ++i)
      loss = learner.Step(step++, images_NHWC, first, flags.batch).loss;
    double seconds = MonotonicSeconds() - start;
    world.AllReduceMax(std::span(&seconds, 1));
    if (round > 0) best = std::min(best, seconds);
  }
  return {{"what", "vqgan-train"},
          {"pictures_per_s", static_cast<double>(flags.batch * flags.steps) / best},
          {"steps_per_s", static_cast<double>(flags.steps) / best},
          {"batch", flags.batch},
          {"image_size", side},
          {"weights", config.model.sizes.ParameterCount()},
          {"dtype", run.dtype},
          {"loss", loss}};
}

}  // namespace

Bench::Measure AddVqganTrainBench(CLI::App& command) {
  auto flags = std::make_shared<VqganTrainBenchFlags>();
  command.add_option("--config", flags->recipe,
                     "recipe whose model and loss are measured (default: as vqgan-clipart.toml)");
  command.add_option("--batch", flags->batch, "images of a step, all ranks together")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  command.add_option("--steps", flags->steps, "steps of a round; the best of three counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  AddExamples(command,
              "  lwm bench vqgan-train\n"
              "  mpirun -np 2 lwm bench vqgan-train --threads 1 --dtype f32");
  return
      [flags](RunContext& context, const RunFlags& run) { return Measure(context, *flags, run); };
}

}  // namespace lwm::app
