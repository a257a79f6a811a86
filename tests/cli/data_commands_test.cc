// The contracts of lwm tokenizer, tokenize, examples and pack.

#include <gtest/gtest.h>

#include <map>

#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "tests/cli/run_program.h"
#include "tests/llama_pieces.h"

namespace lwm {
namespace {

using testing_support::GoldenFolder;
using testing_support::ProgramResult;
using testing_support::RunLwm;
using testing_support::TemporaryFolder;

class DataCommandsTest : public testing::Test {
 protected:
  DataCommandsTest() {
    const auto tokenizer = testing_support::LlamaTokenizer();
    WriteFileAtomically(folder_ / "tokenizer.model", tokenizer->file_content());
  }
  std::string Tokenizer() const { return "--tokenizer " + folder_.path().string(); }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  TemporaryFolder folder_;
};

void ExpectFailure(const ProgramResult& result, int exit_code, const std::string& message) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
}

TEST_F(DataCommandsTest, TokenizeGoesBothWaysLineByLine) {
  const auto there = RunLwm("tokenize " + Tokenizer(), "\"Hello world\"\n\"\"\n\" Hello world\"\n");
  EXPECT_EQ(there.exit_code, 0) << there.err;
  EXPECT_EQ(there.out, "[15043,3186]\n[]\n[29871,15043,3186]\n");
  const auto back = RunLwm("tokenize --decode " + Tokenizer(), there.out);
  EXPECT_EQ(back.out, "\"Hello world\"\n\"\"\n\" Hello world\"\n");
}

TEST_F(DataCommandsTest, TokenizeRefusesWhatIsNoStringOrNoIds) {
  ExpectFailure(RunLwm("tokenize " + Tokenizer(), "12\n"), 1, "line 1 of the input");
  ExpectFailure(RunLwm("tokenize --decode " + Tokenizer(), "[1.5]\n"), 1, "want a JSON array");
  ExpectFailure(RunLwm("tokenize --decode " + Tokenizer(), "[32000]\n"), 2, "32000");
  ExpectFailure(RunLwm("tokenize --tokenizer " + Path("none")), 1, "none");
}

TEST_F(DataCommandsTest, TrainedTokenizerTokenizes) {
  WriteFileAtomically(folder_ / "text.jsonl", R"({"text": "to be or not to be, that is it"})"
                                              "\n");
  const std::string train = "tokenizer train --input " + Path("text.jsonl") + " --output " +
                            Path("new.model") + " --vocab-size ";
  EXPECT_EQ(RunLwm(train + "280").exit_code, 0);
  EXPECT_EQ(RunLwm("tokenize --tokenizer " + Path("new.model"), "\"to be\"").lines().size(), 1u);
  ExpectFailure(RunLwm(train + "5000"), 2, "the largest that fits is");
}

TEST_F(DataCommandsTest, ExamplesPrintsEveryGoodLineAndNamesTheBadOne) {
  const auto result = RunLwm("examples " + Tokenizer() + " --input " +
                             (GoldenFolder("data_dsl") / "data.jsonl").string());
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.err.find("data.jsonl:14"), std::string::npos) << result.err;
  const auto lines = result.lines();
  ASSERT_EQ(lines.size(), 13u);
  const Json last = Json::parse(lines[12]);
  EXPECT_EQ(last["line"], 14);
  EXPECT_EQ(last["tokens"].size(), 269u);
  EXPECT_EQ(last["loss_mask"].size(), 269u);
  double sum[2] = {0, 0};
  for (size_t i = 0; i < 269; ++i)
    sum[last["vision_mask"][i].get<int>()] += last["loss_weights"][i].get<double>();
  EXPECT_NEAR(sum[0], 1, 1e-6);
  EXPECT_NEAR(sum[1], 1, 1e-6);
}

TEST_F(DataCommandsTest, PackPrintsRowsAndTheirStatistics) {
  std::string text;
  for (int i = 0; i < 40; ++i)
    text += R"({"text": "Hello )" + std::string(static_cast<size_t>(i * 7 % 31), 'x') + "\"}\n";
  WriteFileAtomically(folder_ / "text.jsonl", text);
  const auto result =
      RunLwm("pack " + Tokenizer() + " --length 64 --json --ranks 2 --input " + Path("text.jsonl"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json statistics = Json::parse(result.err);
  EXPECT_EQ(statistics["rows"], result.lines().size());
  EXPECT_EQ(statistics["segments"], 40);
  EXPECT_EQ(statistics["examples"], 40);
  EXPECT_GT(statistics["area_balance_balanced"].get<double>(), 0.8);
  double weights = 0;
  for (const std::string& line : result.lines()) {
    const Json row = Json::parse(line);
    for (const char* key : {"tokens", "vision", "begin", "positions", "targets", "weights"})
      EXPECT_EQ(row[key].size(), 64u) << key;
    for (const Json& weight : row["weights"]) weights += weight.get<double>();
  }
  EXPECT_NEAR(weights, 40, 1e-4);
}

TEST_F(DataCommandsTest, PackRefusesByNameWhatItCannotDo) {
  const std::string data = (GoldenFolder("data_dsl") / "data.jsonl").string();
  const std::string pack = "pack " + Tokenizer() + " --input " + data + " --length ";
  ExpectFailure(RunLwm(pack + "1"), 2, "row_tokens 1");
  ExpectFailure(RunLwm(pack + "64 --policy maskd"), 2, "did you mean 'masked'?");
  ExpectFailure(RunLwm(pack + "64 --refuse-long"), 2, "longer than a row of 64");
  const auto bad = RunLwm(pack + "4096");
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_NE(bad.err.find("data.jsonl:14"), std::string::npos) << bad.err;
}

}  // namespace
}  // namespace lwm
