// Flags as a user types them: short forms, places, what a misspelt one is answered with; help.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <sstream>

#include "lwm/base/file.h"
#include "lwm/testing/golden_folder.h"
#include "tests/cli/run_program.h"

namespace lwm {
namespace {
namespace fs = std::filesystem;

using testing_support::GoldenFolder;
using testing_support::ProgramResult;
using testing_support::RunLwm;
using testing_support::TemporaryFolder;

class FlagsCliTest : public testing::Test {
 protected:
  // One line on stderr that holds `message`, exit code 2, nothing on stdout.
  static void ExpectUsageError(const std::string& arguments, const std::string& message) {
    const ProgramResult run = RunLwm(arguments);
    EXPECT_EQ(run.exit_code, 2) << arguments;
    EXPECT_NE(run.err.find(message), std::string::npos) << run.err;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    EXPECT_EQ(run.out, "");
  }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  TemporaryFolder folder_;
  std::string stories_ = GoldenFolder("tiny_stories").string();
};

TEST_F(FlagsCliTest, HelpGroupsCommandsByJob) {
  const ProgramResult run = RunLwm("--help");
  EXPECT_EQ(run.exit_code, 0);
  size_t at = 0;
  for (const char* part : {"Use a model:", "generate", "Train:", "train", "Evaluate:", "score",
                           "Convert:", "convert", "Look inside:", "inspect"}) {
    const size_t next = run.out.find(part, at);
    ASSERT_NE(next, std::string::npos) << part << run.out;
    at = next;
  }
}

TEST_F(FlagsCliTest, ShortFlagsPlacesAndStdinMeanTheSameAsTheLongOnes) {
  const ProgramResult converted =
      RunLwm("convert " + stories_ + "/stories260K.bin " + Path("model") + " --tokenizer " +
             stories_ + "/tok512.bin");
  ASSERT_EQ(converted.exit_code, 0) << converted.err;
  const std::string model = " --temperature 0 --model " + Path("model");
  const ProgramResult text =
      RunLwm("generate --prompt 'Once upon' --max-new-tokens 8 --threads 1" + model);
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_EQ(RunLwm("generate -p 'Once upon' -n 8 -t 1 --temperature 0 -m " + Path("model")).out,
            text.out);
  EXPECT_EQ(RunLwm("generate -n 8 --prompt-file -" + model, "Once upon").out, text.out);
}

TEST_F(FlagsCliTest, ATargetThatEndsInGgufImpliesTheFormat) {
  const std::string from = " --from " + stories_ + "/stories260K.bin";
  const ProgramResult run = RunLwm("convert" + from + " --to " + Path("x.gguf"));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_TRUE(fs::is_regular_file(Path("x.gguf")));
  EXPECT_EQ(ReadFile(Path("x.gguf")).substr(0, 4), "GGUF");
  ExpectUsageError("convert --format hf" + from + " --to " + Path("y.gguf"), "--format hf");
  EXPECT_FALSE(fs::exists(Path("y.gguf")));
}

TEST_F(FlagsCliTest, UnknownFlagsNameTheNearest) {
  ExpectUsageError("generate -m x --promt y", "did you mean '--prompt'?");
  ExpectUsageError("score -m x --txt y", "did you mean '--text'?");
  ExpectUsageError("generate -m x -prompt y",
                   "unknown argument '-prompt'; did you mean '--prompt'");
  ExpectUsageError("generate -m x -p y --temperatur 0", "did you mean '--temperature'?");
  ExpectUsageError("generate -m x -p y --max_new_tokens=3", "did you mean '--max-new-tokens'?");
  ExpectUsageError("genrate", "did you mean 'generate'?");
}

TEST_F(FlagsCliTest, ARecipeKeyUsedAsAFlagIsToldHowToSetIt) {
  ExpectUsageError("train r.toml --steps 10",
                   "unknown argument '--steps'; a key of the recipe: --set train.steps=10");
  ExpectUsageError("train --steps 10 r.toml", "--set train.steps=10");
  ExpectUsageError("train r.toml --lr=1e-4", "--set optimizer.lr=1e-4");
  ExpectUsageError("train r.toml --train.steps 10", "--set train.steps=10");
  ExpectUsageError("train r.toml --run-folder x", "--set train.run_folder=x");
  ExpectUsageError("train r.toml --stepss 10", "did you mean --set train.steps=10?");
  ExpectUsageError("vqgan train r.toml --mse 2", "--set loss.mse=2");
}

TEST_F(FlagsCliTest, ARecipeIsWantedAndTemplatesAreRecipes) {
  ExpectUsageError("train", "lwm train RECIPE.toml");
  for (const char* command : {"train", "vqgan train"}) {
    const ProgramResult run = RunLwm(Cat(command, " --template"));
    EXPECT_EQ(run.exit_code, 0);
    WriteFileAtomically(folder_ / "r.toml", run.out);
    ExpectUsageError(Cat(command, " ", Path("r.toml")), "train.run_folder is missing");
    EXPECT_NE(RunLwm(Cat(command, " --keys")).out.find("[optimizer]  AdamW"), std::string::npos);
  }
}

TEST_F(FlagsCliTest, TheLogFileHasTheTimeOfEveryLineAndTheError) {
  WriteFileAtomically(folder_ / "r.toml", Cat(R"([model]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 1
[data]
train_tokenizer_vocab = 300
row_tokens = 64
train = "/nowhere/*.txt"
[train]
steps = 9
rows_per_step = 1
run_folder = ")",
                                              Path("run"), "\"\n"));
  const std::string command = "train " + Path("r.toml") + " --log-file " + Path("log");
  EXPECT_EQ(RunLwm(command).exit_code, 1);
  EXPECT_EQ(RunLwm(command).exit_code, 1);  // appends
  std::istringstream log(ReadFile(folder_ / "log"));
  int errors = 0;
  for (std::string line; std::getline(log, line);) {
    EXPECT_TRUE(std::regex_match(line, std::regex(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ .+)")))
        << line;
    errors +=
        line.find("error: ") != std::string::npos && line.find("/nowhere") != std::string::npos;
  }
  EXPECT_EQ(errors, 2);
  ExpectUsageError(command + "/no/such/folder", "--log-file");
}

TEST_F(FlagsCliTest, SettingsOfTheEnvironmentWin) {
  setenv("LWM_SET", "train.steps=-1", /*overwrite=*/1);
  WriteFileAtomically(folder_ / "r.toml", "");
  ExpectUsageError("train " + Path("r.toml") + " --set train.steps=3", "--set train.steps=-1");
  unsetenv("LWM_SET");
}

TEST_F(FlagsCliTest, VersionNamesCommitAndLibraries) {
  const ProgramResult run = RunLwm("--version");
  EXPECT_EQ(run.exit_code, 0);
  for (const char* part :
       {"lwm ", "\ncommit ", "\nLibTorch ", "\noneDNN ", "\nHighway ", "\nMPI: "})
    EXPECT_NE(run.out.find(part), std::string::npos) << part << run.out;
}

TEST_F(FlagsCliTest, CompletionKnowsCommandsAndFlags) {
  const ProgramResult bash = RunLwm("completion bash");
  for (const char* part : {"'lwm vqgan encode')", "--max-new-tokens", "--prompt-file"})
    EXPECT_NE(bash.out.find(part), std::string::npos) << part;
  EXPECT_NE(RunLwm("completion zsh").out.find("#compdef lwm"), std::string::npos);
  EXPECT_NE(RunLwm("completion fish").out.find("-l max-new-tokens"), std::string::npos);
  EXPECT_EQ(RunLwm("--help").out.find("completion"), std::string::npos);
}

}  // namespace
}  // namespace lwm
