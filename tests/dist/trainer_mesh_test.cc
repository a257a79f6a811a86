// One recipe on every mesh: the losses must not depend on how ranks share the work.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/random.h"
#include "lwm/config/train_config.h"
#include "lwm/data/packing.h"
#include "lwm/run/metrics.h"
#include "lwm/testing/tiny_model.h"
#include "lwm/train/step.h"
#include "lwm/train/trainer.h"
#include "tests/dist/mpi_main.h"

namespace lwm::train {
namespace {

namespace fs = std::filesystem;

// Pronounceable nonsense with some structure to learn.
std::string Sentences(uint64_t key, int words) {
  const char* parts[] = {"ba", "do", "ke", "li", "mo", "nu", "ra", "se", "ti", "wo"};
  Random random(key);
  std::string text;
  for (int word = 0; word < words; ++word) {
    const uint64_t first = random.Below(10);
    text += parts[first];
    text += parts[(first + random.Below(3)) % 10];
    text += word % 7 == 6 ? ". " : " ";
  }
  return text;
}

// A folder that all ranks know, made and removed by rank 0.
class TrainerMeshTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int64_t id = getpid();
    World().Broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
    folder_ = fs::temp_directory_path() / Cat("lwm_mesh_test.", id);
    if (World().rank() == 0) {
      fs::create_directories(folder_);
      for (uint64_t file = 0; file < 6; ++file)
        WriteFileAtomically(folder_ / Cat("book", file, ".txt"),
                            Sentences(file, 300 + 37 * static_cast<int>(file)));
      std::string lines;
      for (uint64_t line = 0; line < 150; ++line)
        lines +=
            Json{{"text", Sentences(100 + line, 5 + static_cast<int>(line % 31))}}.dump() + "\n";
      WriteFileAtomically(folder_ / "lines.jsonl", lines);
    }
    World().Barrier();
  }
  void TearDown() override {
    World().Barrier();
    if (World().rank() == 0) fs::remove_all(folder_);
  }

  static dist::Communicator& World() { return testing::World(); }

  config::TrainConfig Recipe(const std::string& name, std::vector<std::string> overrides) const {
    const std::vector<std::string> base = {"model.hidden_size=32",
                                           "model.intermediate_size=48",
                                           "model.num_hidden_layers=2",
                                           "model.num_attention_heads=4",
                                           "model.num_key_value_heads=2",
                                           "model.head_dim=8",
                                           "data.train=[\"" + (folder_ / "book*.txt").string() +
                                               "\", \"" + (folder_ / "lines.jsonl").string() +
                                               "\"]",
                                           "data.train_tokenizer_vocab=300",
                                           "data.row_tokens=93",
                                           "data.held_out_fraction=0.1",
                                           "data.held_out_rows=5",
                                           "train.run_folder=" + (folder_ / name).string(),
                                           "train.steps=20",
                                           "train.rows_per_step=5",
                                           "train.dtype=f32",
                                           "train.eval_every=10",
                                           "optimizer.lr=3e-3",
                                           "optimizer.warmup_steps=4",
                                           "optimizer.decay_steps=20"};
    overrides.insert(overrides.begin(), base.begin(), base.end());
    return config::ParseTrainConfig("", "test", overrides);
  }

  // Runs on the first ranks of the world, as many as the mesh wants; returns the losses on rank 0.
  std::vector<double> Losses(const std::string& name, const dist::MeshShape& mesh,
                             std::vector<std::string> overrides = {}) {
    const auto group = World().Split(World().rank() / mesh.ranks());
    if (World().rank() < mesh.ranks()) {
      overrides.push_back(
          Cat("parallel.mesh=", mesh.dp, ",", mesh.fsdp, ",", mesh.tp, ",", mesh.sp));
      Train(Recipe(name, overrides), *group, {});
    }
    World().Barrier();
    return World().rank() == 0 ? LossesOf(name, "metrics.jsonl") : std::vector<double>();
  }

  std::vector<double> LossesOf(const std::string& name, const std::string& file) const {
    std::vector<double> losses;
    for (const Json& line : run::ReadStepLog(folder_ / name / file))
      losses.push_back(line.at("loss"));
    return losses;
  }

  fs::path folder_;
};

constexpr double kRounding = 1e-6;  // of a loss of 5; the worst measured is 5e-7

double WorstDifference(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

TEST_F(TrainerMeshTest, LossesOfTwentyStepsAreTheSameOnEveryMesh) {
  const auto reference = Losses("mesh_alone", {1, 1, 1, 1});
  if (World().rank() == 0) {
    ASSERT_EQ(reference.size(), 20u);
    EXPECT_LT(reference.back(), reference.front() - 0.3) << "it learns";
  }
  const std::vector<dist::MeshShape> meshes = {{1, 1, 1, 2}, {1, 2, 1, 1}, {2, 1, 1, 1},
                                               {1, 1, 2, 1}, {1, 1, 2, 2}, {2, 1, 1, 2},
                                               {1, 2, 1, 2}, {1, 1, 1, 3}, {3, 1, 1, 1}};
  for (const dist::MeshShape& mesh : meshes) {
    if (mesh.ranks() > World().size()) continue;
    const std::string name = Cat("mesh_", mesh.dp, mesh.fsdp, mesh.tp, mesh.sp);
    const auto losses = Losses(name, mesh);
    if (World().rank() != 0) continue;
    const double worst = WorstDifference(losses, reference);
    EXPECT_LE(worst, kRounding) << name;
    EXPECT_LE(WorstDifference(LossesOf(name, "eval.jsonl"), LossesOf("mesh_alone", "eval.jsonl")),
              kRounding)
        << name;
    RecordProperty(name, Cat(worst));
  }
}

TEST_F(TrainerMeshTest, MicroRowsChangeOnlyTheRounding) {
  const dist::MeshShape mesh = {1, 1, 1, World().size()};
  const auto one = Losses("micro_1", mesh);
  const auto three = Losses("micro_3", mesh, {"train.micro_rows=3"});
  if (World().rank() == 0) {
    EXPECT_LE(WorstDifference(one, three), kRounding);
  }
}

TEST_F(TrainerMeshTest, ResumedRunRepeatsTheBitsOfOneThatWasNotStopped) {
  const dist::MeshShape mesh = {1, 1, 1, World().size()};
  const std::vector<std::string> overrides = {"train.dtype=bf16", "train.checkpoint_every=3"};
  const auto whole = Losses("whole", mesh, overrides);
  auto stopped = overrides;
  stopped.push_back("train.steps=7");
  Losses("parts", mesh, stopped);
  const auto parts = Losses("parts", mesh, overrides);
  if (World().rank() != 0) return;
  EXPECT_EQ(whole.size(), 20u);
  EXPECT_EQ(whole, parts);
  EXPECT_EQ(LossesOf("whole", "eval.jsonl").back(), LossesOf("parts", "eval.jsonl").back());
}

TEST_F(TrainerMeshTest, RunGoesOnWithAnotherMesh) {
  if (World().size() < 2) GTEST_SKIP() << "needs two ranks";
  const auto whole = Losses("mesh_whole", {1, 1, 1, 1});
  Losses("mesh_change", {1, 1, 1, 2}, {"train.steps=9"});
  const auto changed = Losses("mesh_change", {2, 1, 1, 1});
  if (World().rank() == 0) {
    EXPECT_LE(WorstDifference(whole, changed), kRounding);
  }
}

TEST_F(TrainerMeshTest, ASampleThatFailsCostsALineNotTheRun) {
  std::string lines;
  TrainHooks hooks;
  hooks.log = [&](const std::string& line) { lines += line + "\n"; };
  hooks.sample = [](const fs::path&) -> std::string {
    throw std::runtime_error("short of memory\nframe #0");  // as LibTorch's errors look
  };
  const auto recipe = Recipe("sample", {"train.steps=2", "train.sample_prompt=a"});
  EXPECT_EQ(Train(recipe, World(), hooks).step, 2);
  if (World().rank() == 0) {
    EXPECT_NE(lines.find("warning: no sample at step 2: short of memory\n"), std::string::npos);
    EXPECT_EQ(lines.find("frame #0"), std::string::npos);
  }
}

// All rows that a policy makes of the documents.
GlobalBatch PackAll(const std::vector<data::Example>& documents, data::PackingPolicy policy) {
  data::PackingConfig config;
  config.row_tokens = 64;
  config.policy = policy;
  data::Packer packer(config);
  std::vector<data::Row> rows;
  const auto take_full = [&] {
    while (!packer.wants_more()) rows.push_back(packer.NextRow());
  };
  for (const data::Example& document : documents) {
    take_full();
    packer.Add(document);
  }
  take_full();
  while (auto row = packer.Flush()) rows.push_back(*row);
  size_t next = 0;
  return TakeGlobalBatch([&] { return rows[next++]; }, static_cast<int64_t>(rows.size()), 0, 1);
}

TEST_F(TrainerMeshTest, PackedRowsEqualThePaddedRegime) {
  config::ModelConfig model = testing_support::TinyConfig();
  model.num_hidden_layers = 2;
  std::vector<data::Example> documents;
  Random random(7);
  for (size_t length : {40, 9, 64, 2, 17, 30, 5, 21, 33, 11, 60, 3, 25}) {
    data::Example example;
    for (size_t i = 0; i < length; ++i)
      example.token_n.push_back(static_cast<int32_t>(random.Below(50)));
    example.vision_n.assign(length, 0);
    example.loss_weight_n.assign(length, 1);
    documents.push_back(example);
  }
  dist::Mesh mesh(World(), {1, 1, 1, World().size()});
  const auto run = [&](data::PackingPolicy policy, int64_t micro_rows) {
    ShardedWeights weights(model, mesh, at::kFloat);
    weights.InitRandom({.seed = 3, .table_std = 0.5, .matrix_std = 0.2});
    StepOptions options;
    options.micro_rows = micro_rows;
    const GlobalBatch batch = PackAll(documents, policy);
    EXPECT_EQ(batch.examples, 13);
    const double loss = AccumulateGradients(weights, batch, 1, options).loss;
    weights.FinishGradients();
    return std::pair(loss, weights.GradientNorm());
  };
  const auto [padded_loss, padded_norm] = run(data::PackingPolicy::kPad, 1);
  const auto [packed_loss, packed_norm] = run(data::PackingPolicy::kMasked, 1);
  const auto [joint_loss, joint_norm] = run(data::PackingPolicy::kMasked, 4);
  EXPECT_NEAR(packed_loss, padded_loss, 1e-6);
  EXPECT_NEAR(packed_norm, padded_norm, 1e-6 * padded_norm);
  EXPECT_NEAR(joint_loss, padded_loss, 1e-6);
  EXPECT_NEAR(joint_norm, padded_norm, 1e-6 * padded_norm);
}

}  // namespace
}  // namespace lwm::train
