// lwm train as a user meets it: what it leaves behind, and one clear line for each mistake.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <limits>
#include <sstream>

#include "lwm/base/error.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/run/metrics.h"
#include "lwm/testing/temporary_folder.h"
#include "tests/cli/run_program.h"

namespace lwm {
namespace {

namespace fs = std::filesystem;
using testing_support::ProgramResult;
using testing_support::RunLwm;
using testing_support::RunLwmUntil;

// The lines of stderr by which the program says why it failed.
std::vector<std::string> ErrorLines(const ProgramResult& result) {
  std::vector<std::string> lines;
  std::istringstream in(result.err);
  for (std::string line; std::getline(in, line);)
    if (line.rfind("lwm: ", 0) == 0) lines.push_back(line);
  return lines;
}

// While it lives, files that programs write may not grow beyond `bytes`: met the same way as the
// end of a disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

// A tiny recipe over a part of one novel.
class TrainCliTest : public ::testing::Test {
 protected:
  TrainCliTest() {
    const fs::path novel = fs::path(std::getenv("LWM_SOURCE_DIR")) / "samples/text/tom_sawyer.txt";
    WriteFileAtomically(folder_ / "novel.txt", ReadFile(novel).substr(0, 60000));
    WriteFileAtomically(folder_ / "recipe.toml", Cat(R"([model]
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 2
num_attention_heads = 2
[data]
train = [")",
                                                     (folder_ / "novel.txt").string(), R"("]
train_tokenizer_vocab = 340
held_out_fraction = 0.1
held_out_rows = 2
row_tokens = 64
[train]
run_folder = ")",
                                                     run().string(), R"("
steps = 4
rows_per_step = 2
sample_prompt = "Tom"
sample_tokens = 5
)"));
  }

  fs::path run() const { return folder_ / "run"; }

  // The program on one thread, so that the tests are quick on a busy machine.
  ProgramResult Train(const std::string& flags) const {
    return RunLwm("train --threads 1 --config " + (folder_ / "recipe.toml").string() + " " + flags);
  }

  // It fails with this exit code and one line that holds all of `parts`.
  void ExpectRefusal(const ProgramResult& outcome, int exit_code,
                     const std::vector<std::string>& parts) const {
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
    const auto lines = ErrorLines(outcome);
    ASSERT_EQ(lines.size(), 1u) << outcome.err;
    for (const std::string& part : parts)
      EXPECT_NE(lines[0].find(part), std::string::npos) << lines[0];
  }

  testing_support::TemporaryFolder folder_;
};

TEST_F(TrainCliTest, RunLeavesMetricsPlotSamplesAndAModelAndGoesOn) {
  const ProgramResult first = Train("");
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_NE(first.err.find("step 4/4"), std::string::npos) << first.err;
  const auto steps = run::ReadStepLog(run() / "metrics.jsonl");
  ASSERT_EQ(steps.size(), 4u);
  EXPECT_EQ(steps[3].at("step"), 4);
  EXPECT_GT(steps[3].at("tokens_per_s"), 0);
  EXPECT_EQ(run::ReadStepLog(run() / "eval.jsonl").size(), 1u);
  for (const char* name :
       {"samples.txt", "config.json", "tokenizer.model", "model/config.json",
        "model/model.safetensors", "model/tokenizer.model", "checkpoints/step_4/trainer.json"})
    EXPECT_TRUE(fs::exists(run() / name)) << name;

  const ProgramResult again = Train("");
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_NE(again.err.find("nothing is left to do"), std::string::npos) << again.err;
  const ProgramResult longer = Train("--set train.steps=6");
  EXPECT_EQ(longer.exit_code, 0) << longer.err;
  EXPECT_NE(longer.err.find("resuming from"), std::string::npos) << longer.err;
  EXPECT_NE(longer.err.find("changed: train.steps 4 -> 6"), std::string::npos) << longer.err;
  EXPECT_EQ(run::ReadStepLog(run() / "metrics.jsonl").size(), 6u);
}

TEST_F(TrainCliTest, SignalsSaveACheckpointAndEnd) {
  for (const char* signal : {"TERM", "INT", "USR1"}) {
    const fs::path folder = folder_ / signal;
    const std::string flags = Cat("train --threads 1 --config ", (folder_ / "recipe.toml").string(),
                                  " --set train.run_folder=", folder.string());
    const ProgramResult stopped =
        RunLwmUntil(folder / "metrics.jsonl", signal, flags + " --set train.steps=1000000");
    EXPECT_EQ(stopped.exit_code, 0) << stopped.err;
    EXPECT_NE(stopped.err.find("(as asked)"), std::string::npos) << stopped.err;
    const size_t steps = run::ReadStepLog(folder / "metrics.jsonl").size();
    EXPECT_TRUE(fs::exists(folder / Cat("checkpoints/step_", steps) / "MANIFEST.json"));
    const ProgramResult more = RunLwm(Cat(flags, " --set train.steps=", steps + 1));
    EXPECT_EQ(more.exit_code, 0) << more.err;
    EXPECT_NE(more.err.find("resuming from"), std::string::npos);
  }
}

TEST_F(TrainCliTest, MisspeltKeysAndFlagsNameTheNearest) {
  ExpectRefusal(Train("--set train.step=5"), 2, {"'step'", "did you mean 'steps'?"});
  ExpectRefusal(Train("--confg x"), 2, {"--confg", "did you mean '--config'?"});
  WriteFileAtomically(folder_ / "recipe.toml", "[trian]\nsteps = 3\n");
  ExpectRefusal(Train(""), 2, {"recipe.toml:1", "'trian'", "did you mean 'train'?"});
  WriteFileAtomically(folder_ / "recipe.toml", "[train]\nsteps = \n");
  ExpectRefusal(Train(""), 2, {"recipe.toml:2"});
}

TEST_F(TrainCliTest, MissingFilesAreNamed) {
  ExpectRefusal(RunLwm("train --config /nowhere/recipe.toml"), 1, {"/nowhere/recipe.toml"});
  ExpectRefusal(Train("--set data.train=/nowhere/*.txt"), 1, {"/nowhere/*.txt"});
}

TEST_F(TrainCliTest, SampleThatFailsCostsAWarningNotTheRun) {
  const ProgramResult run = Train(
      Cat("--set train.sample_prompt=", std::string(400, 'q'), " --set train.sample_every=2"));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.err.find("warning: no sample at step 2: the prompt has"), std::string::npos)
      << run.err;
  EXPECT_NE(run.err.find("step 4/4"), std::string::npos) << run.err;
}

TEST_F(TrainCliTest, VocabularyThatDoesNotMatchTheTokenizerIsRefused) {
  ExpectRefusal(Train("--set model.vocab_size=300"), 2, {"340 ids", "vocab_size is 300"});
}

TEST_F(TrainCliTest, RowLongerThanTheModelsMaximumIsRefused) {
  ExpectRefusal(Train("--set model.max_position_embeddings=63"), 2,
                {"data.row_tokens = 64", "max_position_embeddings = 63"});
}

TEST_F(TrainCliTest, UnwritableRunFolderIsRefused) {
  WriteFileAtomically(folder_ / "file", "");
  ExpectRefusal(Train("--set train.run_folder=" + (folder_ / "file/run").string()), 2,
                {"train.run_folder", "file/run"});
}

TEST_F(TrainCliTest, RunThatCannotFitInMemoryIsRefusedWithAWayOut) {
  ExpectRefusal(Train("--set train.memory_gib=0.01"), 1, {"this run needs", "10.2 MiB are free"});
}

TEST_F(TrainCliTest, MeshThatDoesNotFitTheRanksIsRefused) {
  ExpectRefusal(Train("--set parallel.mesh=1,1,1,3"), 2, {"mesh"});
}

TEST_F(TrainCliTest, FullDiskEndsTheRunAndLosesNothing) {
  ASSERT_EQ(Train("--set train.checkpoint_every=2").exit_code, 0);
  const ProgramResult full = [&] {
    const FileSizeLimit limit(20 << 10);
    return Train("--set train.steps=8");
  }();
  ExpectRefusal(full, 1, {"cannot write"});
  for (const auto& entry : fs::directory_iterator(run() / "checkpoints"))
    EXPECT_EQ(entry.path().filename().string().rfind("step_", 0), 0u) << entry.path();
  const ProgramResult resumed = Train("--set train.steps=8");
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_NE(resumed.err.find("step_4: step 4 of 8"), std::string::npos) << resumed.err;
  EXPECT_EQ(run::ReadStepLog(run() / "metrics.jsonl").size(), 8u);
}

TEST_F(TrainCliTest, ResumeWithOtherTextIsRefusedUnlessAllowed) {
  ASSERT_EQ(Train("").exit_code, 0);
  std::string text = ReadFile(folder_ / "novel.txt");
  text[100] = '#';
  WriteFileAtomically(folder_ / "novel.txt", text);
  ExpectRefusal(Train("--set train.steps=6"), 2,
                {"the data has changed", "novel.txt", "data.allow_changed"});
  const ProgramResult allowed = Train("--set train.steps=6 --set data.allow_changed=true");
  EXPECT_EQ(allowed.exit_code, 0) << allowed.err;
  EXPECT_NE(allowed.err.find("warning: the data has changed"), std::string::npos) << allowed.err;
}

TEST_F(TrainCliTest, ResumeWithAnotherTokenizerIsRefused) {
  ASSERT_EQ(Train("").exit_code, 0);
  const std::string steps = " --set train.steps=6 --set data.train_tokenizer_vocab=";
  ExpectRefusal(Train(steps + "350"), 2, {"data.train_tokenizer_vocab is 350", "340 pieces"});
  ASSERT_EQ(
      RunLwm(Cat("tokenizer train --vocab-size 350 --input ", (folder_ / "novel.txt").string(),
                 " --output ", (folder_ / "other.model").string()))
          .exit_code,
      0);
  const std::string given = "0 --set data.tokenizer=";
  ExpectRefusal(Train(steps + given + (folder_ / "other.model").string()), 2,
                {"data.tokenizer", "other.model", "350 ids instead of 340"});
  const ProgramResult own = Train(steps + given + (run() / "tokenizer.model").string());
  EXPECT_EQ(own.exit_code, 0) << own.err;
}

TEST_F(TrainCliTest, InitKeepsItsOwnTokenizer) {
  ASSERT_EQ(Train("").exit_code, 0);
  std::string recipe = ReadFile(folder_ / "recipe.toml");
  recipe = "[model]\ninit = \"" + (run() / "model").string() + "\"\n" +
           recipe.substr(recipe.find("[data]"));
  WriteFileAtomically(folder_ / "recipe.toml", recipe);
  const std::string next = "--set train.run_folder=" + (folder_ / "next").string();
  ExpectRefusal(Train(next), 2, {"data.train_tokenizer_vocab", "the model's own tokenizer"});
  ASSERT_EQ(
      RunLwm(Cat("tokenizer train --vocab-size 339 --input ", (folder_ / "novel.txt").string(),
                 " --output ", (folder_ / "other.model").string()))
          .exit_code,
      0);
  const std::string other = next + " --set data.train_tokenizer_vocab=0 --set data.tokenizer=" +
                            (folder_ / "other.model").string();
  ExpectRefusal(Train(other), 2, {"other.model", "model.init", "model.replace_tokenizer"});
  const ProgramResult own = Train(next + " --set data.train_tokenizer_vocab=0");
  EXPECT_EQ(own.exit_code, 0) << own.err;
}

// A line of a question that is given and a short answer, in rows that end before the answer.
TEST_F(TrainCliTest, AnswersBehindTheRowAreCountedOrRefused) {
  std::string lines;
  for (int i = 0; i < 6; ++i)
    lines += Cat(R"({"fields": "[q],a", "q": ")", std::string(i % 3 == 0 ? 4 : 200, '7'),
                 R"(", "a": "yes"})", "\n");
  WriteFileAtomically(folder_ / "chat.jsonl", lines);
  const std::string flags = Cat(
      "--set data.held_out_fraction=0 --set data.train=", (folder_ / "chat.jsonl").string(),
      " --set data.train_tokenizer_vocab=266 --set train.run_folder=", (folder_ / "chat").string(),
      " --set data.packing=");
  const ProgramResult pad = Train(flags + "pad");
  EXPECT_EQ(pad.exit_code, 0) << pad.err;
  EXPECT_NE(pad.err.find("warning: 4 of 6 lines"), std::string::npos) << pad.err;
  EXPECT_NE(pad.err.find("no token to learn"), std::string::npos) << pad.err;
  ExpectRefusal(Train(flags + "pad --set data.row_tokens=4"), 2,
                {"none of 6 lines", "has a token to learn"});
}

TEST_F(TrainCliTest, WeightsThatAreNotNumbersAreRefusedByName) {
  ASSERT_EQ(Train("").exit_code, 0);
  const fs::path start = folder_ / "start";
  fs::create_directory(start);
  for (const char* name : {"config.json", "tokenizer.model"})
    fs::copy_file(run() / "model" / name, start / name);
  checkpoint::NamedTensors weights;
  for (auto& [name, tensor] : checkpoint::LoadTensors(run() / "model/model.safetensors"))
    weights.emplace_back(name, tensor);
  for (auto& [name, tensor] : weights)
    if (name == "model.layers.1.mlp.up_proj.weight")
      tensor[3][5] = std::numeric_limits<float>::quiet_NaN();
  checkpoint::SaveTensors(start / "model.safetensors", weights);
  const std::string flags = Cat(
      "--set model.init=", start.string(), " --set model.hidden_size=32",
      " --set data.train_tokenizer_vocab=0 --set train.run_folder=", (folder_ / "second").string());
  ExpectRefusal(Train(flags), 1, {"model.layers.1.mlp.up_proj.weight"});
}

}  // namespace
}  // namespace lwm
