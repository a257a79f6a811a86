#include "lwm/train/checkpoint.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <map>
#include <optional>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/run/checkpoint_find.h"
#include "lwm/run/shared_outcome.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_sharded_model.h"
#include "tests/dist/mesh_shapes.h"
#include "tests/dist/mpi_main.h"

namespace lwm::train {
namespace {
namespace fs = std::filesystem;

using lwm::testing::ForEachMesh;
using lwm::testing::MeshText;
using lwm::testing::World;
using train::testing::SliceOf;
using train::testing::TinyModel;
using train::testing::WholeModel;

// One folder for all ranks, removed by rank 0.
class SharedFolder {
 public:
  SharedFolder() {
    if (World().rank() == 0) own_.emplace();
    path_ = run::GatherTexts(World(), own_ ? own_->path().string() : "")[0];
  }
  ~SharedFolder() { World().Barrier(); }
  const fs::path& path() const { return path_; }

 private:
  std::optional<testing_support::TemporaryFolder> own_;
  fs::path path_;
};

// Masters and moments as three models drawn with three seeds.
struct Training {
  ShardedWeights weights;
  AdamW optimizer;
  Training(const config::ModelConfig& config, dist::Mesh& mesh)
      : weights(config, mesh, at::kBFloat16), optimizer(weights, {}) {}

  void Draw(uint64_t seed) {
    for (const uint64_t which : {2, 1, 0}) {
      weights.InitRandom({.seed = seed + which, .table_std = 1, .matrix_std = 1});
      for (int64_t group = weights.first_group(); group < weights.end_group(); ++group) {
        AdamW::Moments& moments = optimizer.moments(group);
        if (which == 2) moments.second_n.copy_(weights.shard(group).master_n);
        if (which == 1) moments.first_n.copy_(weights.shard(group).master_n);
      }
    }
    optimizer.set_steps(static_cast<int64_t>(seed));
  }

  fs::path Save(const fs::path& run, int64_t step, int64_t file_bytes = 3000) {
    const dist::Mesh& mesh = weights.mesh();
    const TrainerState state = {step, {{"seed", 42}}, {{"reader", mesh.data_rank()}}};
    CheckpointOptions options;
    options.config = config::ModelConfigToJson(weights.config(), "float32");
    options.model_file_bytes = file_bytes;
    return SaveCheckpoint(run, options, state, weights, optimizer);
  }

  void ExpectDrawn(uint64_t seed) {
    WholeModel master(weights.config(), seed), first(weights.config(), seed + 1),
        second(weights.config(), seed + 2);
    for (int64_t group = weights.first_group(); group < weights.end_group(); ++group)
      for (const ShardPiece& piece : weights.shard(group).pieces) {
        const auto expect = [&](const at::Tensor& n, WholeModel& whole) {
          EXPECT_TRUE(at::equal(n.narrow(0, piece.offset, piece.slice.size()),
                                SliceOf(whole(piece.spec), piece)))
              << piece.spec.name << " " << SliceText(piece.slice);
        };
        expect(weights.shard(group).master_n, master);
        expect(optimizer.moments(group).first_n, first);
        expect(optimizer.moments(group).second_n, second);
      }
    EXPECT_EQ(optimizer.steps(), static_cast<int64_t>(seed));
  }
};

TEST(CheckpointDistTest, AnyMeshLoadsWhatAnyMeshSavedBitForBit) {
  const config::ModelConfig config = TinyModel(2);
  SharedFolder folder;
  int64_t step = 0;
  std::map<fs::path, dist::MeshShape> saved;
  // Saved by every mesh of 1, 2 ... all ranks.
  for (int ranks = 1; ranks <= World().size(); ++ranks) {
    const auto part = World().Split(World().rank() < ranks ? 0 : 1);
    for (const dist::MeshShape& shape : lwm::testing::MeshShapes(ranks)) {
      ++step;
      const fs::path run = folder.path() / std::to_string(step);
      saved[run / "checkpoints/step_3"] = shape;
      if (World().rank() >= ranks) continue;
      dist::Mesh mesh(*part, shape);
      Training training(config, mesh);
      training.Draw(20);
      EXPECT_EQ(training.Save(run, 3, step % 2 ? 3000 : 1 << 30), run / "checkpoints/step_3");
    }
  }
  World().Barrier();
  ForEachMesh(World(), [&](dist::Mesh& mesh) {
    for (const auto& [checkpoint, shape] : saved) {
      SCOPED_TRACE("saved on mesh " + MeshText(shape));
      Training training(config, mesh);
      const LoadedCheckpoint loaded =
          LoadCheckpoint(checkpoint, training.weights, training.optimizer);
      training.ExpectDrawn(20);
      EXPECT_EQ(loaded.state.step, 3);
      EXPECT_EQ(MeshText(loaded.mesh), MeshText(shape));
      EXPECT_EQ(loaded.data_cursors.size(), static_cast<size_t>(shape.dp * shape.fsdp));
      EXPECT_EQ(loaded.data_cursors.back()["reader"], shape.dp * shape.fsdp - 1);
      if (shape.dp * shape.fsdp == 1) {
        EXPECT_EQ(loaded.state.data_cursor["reader"], 0);
      } else if (shape.dp * shape.fsdp == mesh.data_size()) {
        EXPECT_EQ(loaded.state.data_cursor["reader"], mesh.data_rank());
      } else {
        EXPECT_TRUE(loaded.state.data_cursor.is_null());
      }
    }
  });
}

TEST(CheckpointDistTest, DamagedNewestIsSkippedByAllRanks) {
  SharedFolder folder;
  dist::Mesh mesh(World(), {1, World().size(), 1, 1});
  Training training(TinyModel(2), mesh);
  training.Draw(5);
  const fs::path good = training.Save(folder.path(), 1);
  const fs::path newest = training.Save(folder.path(), 2);
  std::vector<std::string> warnings;
  const auto warn = [&](const std::string& text) { warnings.push_back(text); };
  EXPECT_EQ(run::FindLatestValid(World(), folder.path(), warn), newest);
  const std::string last = Cat("optimizer/rank_", World().size() - 1, ".safetensors");
  if (World().rank() == 0) fs::resize_file(newest / last, fs::file_size(newest / last) - 4);
  World().Barrier();
  EXPECT_EQ(run::FindLatestValid(World(), folder.path(), warn), good);
  ASSERT_EQ(warnings.size(), World().rank() == 0 ? 1u : 0u);
  for (const std::string& text : warnings) EXPECT_NE(text.find(last), std::string::npos) << text;
}

TEST(CheckpointDistTest, OneRankWithAFullDiskFailsAllAlike) {
  SharedFolder folder;
  dist::Mesh mesh(World(), {1, 1, 1, World().size()});
  Training training(TinyModel(2), mesh);
  training.Draw(5);
  const fs::path good = training.Save(folder.path(), 1);
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small = {1500, limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  if (World().rank() == World().size() - 1) setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    training.Save(folder.path(), 2);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("checkpoint of step 2: cannot write"), std::string::npos) << message;
  for (const std::string& other : run::GatherTexts(World(), message)) EXPECT_EQ(other, message);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path() / "checkpoints"), {}), 1);
  EXPECT_EQ(run::FindLatestValid(World(), folder.path(), [](const std::string&) {}), good);
}

}  // namespace
}  // namespace lwm::train
