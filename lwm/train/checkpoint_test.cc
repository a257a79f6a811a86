#include "lwm/train/checkpoint.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/safetensors.h"
#include "lwm/run/checkpoint_find.h"
#include "lwm/run/checkpoint_paths.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_sharded_model.h"

namespace lwm::train {
namespace {
namespace fs = std::filesystem;

using testing::TinyModel;

// A model with its optimizer on one rank, and a run folder.
class CheckpointTest : public ::testing::Test {
 protected:
  // Masters and moments that depend on the step.
  void Draw(uint64_t step) {
    for (int64_t group = weights_.first_group(); group < weights_.end_group(); ++group) {
      const at::Tensor i = at::arange(weights_.shard(group).master_n.numel(), at::kFloat);
      const double seed = static_cast<double>(step) + 0.1 * static_cast<double>(group);
      for (const ShardPiece& piece : weights_.shard(group).pieces) {
        const auto fill = [&](const at::Tensor& n, double phase) {
          n.narrow(0, piece.offset, piece.slice.size())
              .copy_(at::sin(i.narrow(0, piece.offset, piece.slice.size()) + seed + phase));
        };
        fill(weights_.shard(group).master_n, 0);
        fill(optimizer_.moments(group).first_n, 1);
        fill(optimizer_.moments(group).second_n, 2);
      }
    }
    weights_.MastersChanged();
    optimizer_.set_steps(static_cast<int64_t>(step));
  }

  fs::path Save(int64_t step, int keep = 3, int64_t file_bytes = 1 << 30) {
    Draw(static_cast<uint64_t>(step));
    const TrainerState state = {step, {{"tokens", step * 100}}, {{"row", step * 7}}};
    CheckpointOptions options;
    options.keep = keep;
    options.config = config::ModelConfigToJson(weights_.config(), "float32");
    options.model_file_bytes = file_bytes;
    options.extra_files = extra_files_;
    options.warn = [&](const std::string& text) { warnings_.push_back(text); };
    return SaveCheckpoint(run_.path(), options, state, weights_, optimizer_);
  }

  std::optional<fs::path> Find() {
    warnings_.clear();
    return run::FindLatestValid(*self_, run_.path(),
                                [&](const std::string& text) { warnings_.push_back(text); });
  }

  std::vector<std::string> Entries() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(run_ / "checkpoints"))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  // All state as one tensor.
  at::Tensor Everything() {
    std::vector<at::Tensor> parts;
    for (int64_t group = weights_.first_group(); group < weights_.end_group(); ++group) {
      parts.push_back(weights_.shard(group).master_n);
      parts.push_back(optimizer_.moments(group).first_n);
      parts.push_back(optimizer_.moments(group).second_n);
    }
    return at::cat(parts);
  }

  testing_support::TemporaryFolder run_;
  std::unique_ptr<dist::Communicator> self_ = dist::MakeSelfCommunicator();
  dist::Mesh mesh_{*self_, {}};
  ShardedWeights weights_{TinyModel(), mesh_, at::kBFloat16};
  AdamW optimizer_{weights_, {}};
  std::vector<std::string> warnings_;
  std::map<std::string, fs::path> extra_files_;
};

void FlipByte(const fs::path& path, std::streamoff at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const char byte = static_cast<char>(file.get());
  file.seekp(at);
  file.put(static_cast<char>(byte ^ 1));
}

TEST_F(CheckpointTest, LoadingGivesBackEveryBit) {
  const fs::path folder = Save(4);
  const at::Tensor saved = Everything();
  Draw(9);
  const LoadedCheckpoint loaded = LoadCheckpoint(folder, weights_, optimizer_);
  EXPECT_TRUE(at::equal(Everything(), saved));
  EXPECT_EQ(loaded.state.step, 4);
  EXPECT_EQ(loaded.state.trainer["tokens"], 400);
  EXPECT_EQ(loaded.state.data_cursor["row"], 28);
  EXPECT_EQ(optimizer_.steps(), 4);
  EXPECT_TRUE(at::equal(
      weights_.Layer(0)->q_HKxD.dense().flatten().narrow(0, 0, 5),
      saved.narrow(0, 3 * weights_.shard(-1).master_n.numel() + 32, 5).to(at::kBFloat16)));
}

TEST_F(CheckpointTest, IsAModelDirectoryThatOtherToolsRead) {
  const fs::path folder = Save(2);
  EXPECT_EQ(folder, run_ / "checkpoints/step_2");
  const io::SafetensorsFile file(folder / "model.safetensors");
  EXPECT_EQ(file.info("model.layers.1.mlp.down_proj.weight").shape, (std::vector<int64_t>{10, 12}));
  EXPECT_EQ(file.infos().size(), 23u);
  EXPECT_EQ(config::ReadModelConfig(folder / "config.json").hidden_size, 10);
}

TEST_F(CheckpointTest, CompanionsAreFilesOrFoldersAndAreGuardedToo) {
  const testing_support::TemporaryFolder from;
  fs::create_directories(from / "codes");
  WriteFileAtomically(from / "words", "abc");
  WriteFileAtomically(from / "codes/config.json", "{}");
  WriteFileAtomically(from / "codes/weights", std::string("\0\1", 2));
  WriteFileAtomically(from / "codes/MANIFEST.json", "of another folder");
  extra_files_ = {{"tokenizer.model", from / "words"}, {"vqgan", from / "codes"}};
  const fs::path folder = Save(2);
  EXPECT_EQ(ReadFile(folder / "tokenizer.model"), "abc");
  EXPECT_EQ(ReadFile(folder / "vqgan/config.json"), "{}");
  EXPECT_EQ(ReadFile(folder / "vqgan/weights"), std::string("\0\1", 2));
  EXPECT_FALSE(fs::exists(folder / "vqgan/MANIFEST.json"));
  EXPECT_EQ(run::FindDamage(folder), std::nullopt);
  FlipByte(folder / "vqgan/weights", 1);
  EXPECT_NE(run::FindDamage(folder).value_or("").find("vqgan/weights"), std::string::npos);
}

TEST_F(CheckpointTest, LargeModelsTakeSeveralFilesWithAnIndex) {
  const fs::path folder = Save(2, 3, 4000);
  const at::Tensor saved = Everything();
  EXPECT_FALSE(fs::exists(folder / "model.safetensors"));
  const Json index = ReadJsonFile(folder / "model.safetensors.index.json");
  EXPECT_EQ(index["weight_map"]["model.layers.1.mlp.up_proj.weight"],
            "model-00003-of-00003.safetensors");
  Draw(5);
  LoadCheckpoint(folder, weights_, optimizer_);
  EXPECT_TRUE(at::equal(Everything(), saved));
}

TEST_F(CheckpointTest, NewestIsFoundAndOldOnesAreDeleted) {
  EXPECT_EQ(Find(), std::nullopt);
  for (const int64_t step : {5, 10, 100}) Save(step, 2);
  EXPECT_EQ(Find(), run_ / "checkpoints/step_100");
  EXPECT_EQ(Entries(), (std::vector<std::string>{"step_10", "step_100"}));
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(CheckpointTest, DamagedOnesDoNotCountAmongTheKept) {
  Save(1, 2);
  fs::resize_file(Save(2, 2) / "model.safetensors", 10);
  Save(3, 2);
  EXPECT_EQ(Entries(), (std::vector<std::string>{"step_1", "step_2", "step_3"}));
  fs::remove(Save(4, 2) / "MANIFEST.json");
  Save(5, 2);
  EXPECT_EQ(Entries(), (std::vector<std::string>{"step_3", "step_4", "step_5"}));
  Save(6, 2);
  EXPECT_EQ(Entries(), (std::vector<std::string>{"step_5", "step_6"}));
}

TEST_F(CheckpointTest, SavingTheSameStepAgainReplacesIt) {
  Save(5);
  const fs::path folder = Save(5);
  EXPECT_EQ(Find(), folder);
  EXPECT_EQ(Entries().size(), 1u);
}

TEST_F(CheckpointTest, AnyDamagedFileMeansTheOneBefore) {
  const fs::path good = Save(1);
  for (const char* name : {"model.safetensors", "optimizer/rank_0.safetensors", "trainer.json",
                           "config.json", "MANIFEST.json"}) {
    for (const char* damage : {"flip", "cut", "remove"}) {
      const fs::path file = Save(2) / name;
      const auto size = fs::file_size(file);
      if (!std::strcmp(damage, "flip")) FlipByte(file, static_cast<std::streamoff>(size / 2));
      if (!std::strcmp(damage, "cut")) fs::resize_file(file, size - 1);
      if (!std::strcmp(damage, "remove")) fs::remove(file);
      EXPECT_TRUE(run::FindDamage(file.parent_path().filename() == "optimizer"
                                      ? file.parent_path().parent_path()
                                      : file.parent_path()))
          << name << " " << damage;
      EXPECT_EQ(Find(), good) << name << " " << damage;
      ASSERT_EQ(warnings_.size(), 1u);
      EXPECT_NE(warnings_[0].find("step_2 is damaged"), std::string::npos) << warnings_[0];
      EXPECT_EQ(warnings_[0].find('\n'), std::string::npos);
    }
  }
}

TEST_F(CheckpointTest, EveryByteOfTheManifestIsGuarded) {
  const fs::path good = Save(1), folder = Save(2);
  const fs::path manifest = folder / "MANIFEST.json";
  const std::string text = ReadFile(manifest);
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == ' ' || text[at] == '\n') continue;
    FlipByte(manifest, static_cast<std::streamoff>(at));
    EXPECT_TRUE(run::FindDamage(folder)) << "byte " << at << " of " << text;
    FlipByte(manifest, static_cast<std::streamoff>(at));
  }
  EXPECT_FALSE(run::FindDamage(folder));
}

TEST_F(CheckpointTest, LeftoversOfKilledSavesAreRemoved) {
  Save(1);
  fs::create_directories(run_ / "checkpoints/.writing_step_2/optimizer");
  fs::create_directories(run_ / "checkpoints/.deleted_step_0");
  WriteFileAtomically(run_ / "checkpoints/.writing_step_2/model.safetensors", "half");
  fs::create_directories(run_ / "checkpoints/step_other");
  EXPECT_EQ(Find(), run_ / "checkpoints/step_1");
  EXPECT_EQ(Entries(), (std::vector<std::string>{"step_1", "step_other"}));
}

TEST_F(CheckpointTest, TheModelLinkIsMadeUpForAfterAKill) {
  const fs::path old = Save(1), folder = Save(2);
  fs::remove(run_ / "model");
  EXPECT_EQ(Find(), folder);  // killed before there was a link
  EXPECT_TRUE(fs::equivalent(run_ / "model", folder));
  ASSERT_EQ(run::LinkModel(run_.path(), run_ / "checkpoints/step_0"),
            "");  // and before it was moved
  EXPECT_EQ(Find(), folder);
  EXPECT_TRUE(fs::equivalent(run_ / "model", folder));
  FlipByte(folder / "model.safetensors", 20);
  EXPECT_EQ(Find(), old);
  EXPECT_TRUE(fs::equivalent(run_ / "model", old));
}

TEST_F(CheckpointTest, TheModelLinkLeadsToAWholeCheckpointWhenOldOnesGo) {
  EXPECT_TRUE(fs::equivalent(run_ / "model", Save(1, 1)));
  EXPECT_TRUE(fs::equivalent(run_ / "model", Save(2, 1)));
  fs::remove(run_ / "model");
  fs::create_directories(run_ / "model/in the way");
  const fs::path folder = Save(3, 1);
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("cannot link"), std::string::npos) << warnings_[0];
  EXPECT_EQ(Entries(), std::vector<std::string>{"step_3"});
}

TEST_F(CheckpointTest, TheLinkedCheckpointStaysWhenTheLinkCannotMove) {
  const fs::path linked = Save(1, 1);
  fs::create_directories(run_ / ".model.tmp/in the way");
  for (const int64_t step : {2, 3}) Save(step, 1);
  EXPECT_EQ(warnings_.size(), 2u);
  EXPECT_EQ(Entries(), (std::vector<std::string>{"step_1", "step_3"}));
  EXPECT_TRUE(fs::equivalent(run_ / "model", linked));
}

TEST_F(CheckpointTest, ARunWhoseCheckpointsAreAllDamagedIsNotBegunAnew) {
  for (const int64_t step : {1, 2}) FlipByte(Save(step) / "model.safetensors", 20);
  try {
    Find();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    EXPECT_NE(std::string(error.what()).find("is whole (2 damaged)"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(warnings_.size(), 2u);
  fs::remove_all(run_ / "checkpoints");
  EXPECT_EQ(Find(), std::nullopt);
}

TEST_F(CheckpointTest, WeightsThatAreNotFiniteDoNotReplaceGoodOnes) {
  const fs::path good = Save(1, 1);
  weights_.shard(1).master_n[3] = std::numeric_limits<float>::quiet_NaN();
  CheckpointOptions options;
  options.keep = 1;
  TrainerState state;
  state.step = 2;
  try {
    SaveCheckpoint(run_.path(), options, state, weights_, optimizer_);
    ADD_FAILURE() << "the save succeeded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    EXPECT_NE(std::string(error.what()).find("checkpoint of step 2: the weights hold"),
              std::string::npos)
        << error.what();
  }
  EXPECT_EQ(Entries(), std::vector<std::string>{"step_1"});
  EXPECT_EQ(Find(), good);
}

TEST_F(CheckpointTest, FullDiskLeavesOlderCheckpointsAlone) {
  const fs::path good = Save(1, 1);
  // Files may not grow beyond this: the system's answer is that of a full disk.
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small = {3000, limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  try {
    Save(2, 1);
    ADD_FAILURE() << "the save succeeded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_NE(std::string(error.what()).find("checkpoint of step 2: cannot write"),
              std::string::npos)
        << error.what();
  }
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(Entries(), std::vector<std::string>{"step_1"});
  EXPECT_EQ(Find(), good);
}

TEST_F(CheckpointTest, UnwritableFolderIsOneClearLine) {
  WriteFileAtomically(run_ / "checkpoints", "a file in the way");
  try {
    Save(1);
    ADD_FAILURE() << "the save succeeded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("checkpoints: Not a directory"), std::string::npos)
        << error.what();
  }
}

TEST_F(CheckpointTest, AnotherModelIsRefusedByName) {
  const fs::path folder = Save(1);
  config::ModelConfig other = TinyModel();
  other.num_attention_heads = other.num_key_value_heads = 2;
  other.head_dim = 4;
  ShardedWeights weights(other, mesh_, at::kFloat);
  AdamW optimizer(weights, {});
  try {
    LoadCheckpoint(folder, weights, optimizer);
    ADD_FAILURE() << "the load succeeded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("num_attention_heads is 4, the run's model has 2"),
              std::string::npos)
        << error.what();
  }
}

TEST_F(CheckpointTest, IncompleteMomentsAreRefused) {
  const fs::path folder = Save(1);
  const fs::path file = folder / "optimizer/rank_0.safetensors";
  const std::string name = "model.norm.weight|whole:0-10|exp_avg";
  {
    const io::SafetensorsFile all(file);
    std::vector<io::TensorInfo> infos = all.infos();
    std::erase_if(infos, [&](const io::TensorInfo& info) { return info.name == name; });
    ASSERT_EQ(infos.size() + 1, all.infos().size());
    io::SafetensorsWriter writer(run_ / "partial", infos);
    for (const auto& info : infos) writer.Write(info.name, all.bytes(info.name));
    writer.Finish();
  }
  fs::rename(run_ / "partial", file);
  try {
    LoadCheckpoint(folder, weights_, optimizer_);
    ADD_FAILURE() << "the load succeeded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    EXPECT_NE(std::string(error.what()).find("model.norm.weight are incomplete (10 of 20"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace lwm::train
