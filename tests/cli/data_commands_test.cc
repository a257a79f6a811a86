// The contracts of lwm tokenizer, tokenize, examples and pack.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/data/documents.h"
#include "lwm/io/image_file.h"
#include "lwm/testing/llama_pieces.h"
#include "lwm/testing/tiny_vqgan.h"
#include "tests/cli/run_program.h"

namespace lwm {
namespace {

using testing_support::GoldenFolder;
using testing_support::ProgramResult;
using testing_support::RunLwm;
using testing_support::RunLwmIn;
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
  ExpectFailure(RunLwm("tokenize --decode " + Tokenizer(), "[4294982339]\n"), 1, "4294982339");
  ExpectFailure(RunLwm("tokenize --tokenizer " + Path("none")), 1, "none");
}

TEST_F(DataCommandsTest, TooLittleMemoryIsOneLine) {
  const auto limited = [](const std::string& command) { return "ulimit -v 3000000; " + command; };
  const ProgramResult result = RunLwmIn(limited, "bench attention --tokens 4000000", "");
  ExpectFailure(result, 1, "out of memory");
  EXPECT_EQ(result.err.find('\n'), result.err.size() - 1) << result.err;
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

TEST_F(DataCommandsTest, FilesThatAreNoTextAreNamed) {
  const std::string pack = "pack " + Tokenizer() + " --length 64 --input ";
  WriteFileAtomically(folder_ / "book.txt", std::string("\xFF\xFEH\0i\0", 6));
  WriteFileAtomically(folder_ / "lines.json", "[{\"text\": \"Hi\"}]");
  WriteFileAtomically(folder_ / "table.csv", "text\nHi\n");
  WriteFileAtomically(folder_ / "empty.txt", "\n");
  WriteFileAtomically(folder_ / "latin.txt", "caf\xE9");
  WriteFileAtomically(folder_ / "page.pdf", "%PDF-1.4\n");
  const auto tokens = [&](const std::string& name) {
    const auto rows = RunLwm(pack + Path(name)).lines();
    return rows.empty() ? Json() : Json::parse(rows[0])["tokens"];
  };
  EXPECT_FALSE(tokens("book.txt").is_null());
  EXPECT_EQ(tokens("book.txt"), tokens("lines.json"));
  ExpectFailure(RunLwm(pack + Path("table.csv")), 1, "is a table (CSV)");
  ExpectFailure(RunLwm(pack + Path("empty.txt")), 1, "is empty");
  ExpectFailure(RunLwm(pack + Path("latin.txt")), 1, "not UTF-8: byte 3 (line 1) is 0xe9");
  ExpectFailure(RunLwm(pack + Path("page.pdf")), 1, "is a PDF document");
  ExpectFailure(
      RunLwm("tokenizer train --vocab-size 300 --output x.model --input " + Path("latin.txt")), 1,
      "not UTF-8");
  std::filesystem::create_directory(folder_ / "folder");
  WriteFileAtomically(folder_ / "folder/a.txt", "Hi");
  WriteFileAtomically(folder_ / "folder/b.csv", "Hi");
  const auto mixed = RunLwm(pack + Path("folder"));
  EXPECT_EQ(mixed.exit_code, 0);
  EXPECT_NE(mixed.err.find("1 file left out of " + Path("folder") + ": 1 .csv"), std::string::npos)
      << mixed.err;
}

// Images named by JSONL, a tiny VQGAN with random weights.
class MediaCommandsTest : public DataCommandsTest {
 protected:
  MediaCommandsTest() {
    setenv("XDG_CACHE_HOME", Path("cache").c_str(), /*overwrite=*/1);
    testing_support::WriteTinyVqgan(folder_ / "vqgan", 3);
    std::filesystem::create_directories(folder_ / "media");
    for (uint64_t i = 0; i < 3; ++i)
      io::WritePng(folder_ / "media" / Cat(i, ".png"), testing_support::NoiseImage(i, 20, 24));
    testing_support::WriteGreyVideo(folder_ / "media" / "clip.mp4", 7);
    WriteFileAtomically(folder_ / "media" / "bad.png", "no image");
    WriteFileAtomically(folder_ / "media" / "lines.jsonl",
                        R"({"caption": "one", "image_vision": "0.png", "id": 5}
{"caption": "two", "image_vision": ["1.png", "2.png"]}
{"caption": "bad", "image_vision": "bad.png"}
{"caption": "clip", "image_vision": {"path": "clip.mp4", "frames": 2}}
)");
  }
  std::string Encode(const std::string& input, const std::string& flags = "") const {
    return "encode --vqgan " + Path("vqgan") + " --input " + Path(input) + " --output " +
           Path("coded.jsonl") + " " + flags;
  }
};

TEST_F(MediaCommandsTest, EncodeWritesCodesForPathsAndCountsWhatItSkips) {
  ExpectFailure(RunLwm(Encode("media/lines.jsonl")), 1, "lines.jsonl:3: field \"image_vision\"");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "coded.jsonl"));
  const auto result = RunLwm(Encode("media/lines.jsonl", "--skip-bad"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("skipped " + Path("media/lines.jsonl") + ":3"), std::string::npos);
  EXPECT_NE(result.err.find("wrote 3 lines"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("skipped 1"), std::string::npos) << result.err;
  const data::JsonlFile coded(folder_ / "coded.jsonl");
  ASSERT_EQ(coded.lines(), 3);
  EXPECT_EQ(coded.Parse(0)["id"], 5);
  EXPECT_EQ(coded.Parse(0)["image_vision"].size(), 4u);
  EXPECT_EQ(coded.Parse(1)["image_vision"].size(), 8u);
  EXPECT_EQ(coded.Parse(2)["image_vision"].size(), 8u);
  const auto again = RunLwm(Encode("media/lines.jsonl", "--skip-bad"));
  EXPECT_NE(again.err.find("encoded 0 frames"), std::string::npos) << again.err;
}

TEST_F(MediaCommandsTest, CommandsThatLookLeaveTheDataFolderAsItIs) {
  const auto list = [&] {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_ / "media"))
      names.insert(entry.path().string());
    return names;
  };
  const auto before = list();
  const std::string flags = Tokenizer() + " --vqgan " + Path("vqgan") + " --input " +
                            Path("media/lines.jsonl") + " --fields '[caption],image_vision'";
  const auto examples = RunLwm("examples " + flags);
  EXPECT_EQ(examples.lines().size(), 3u) << examples.err;
  const auto pack = RunLwm("pack --length 64 --skip-bad-lines " + flags);
  EXPECT_EQ(pack.exit_code, 0) << pack.err;
  EXPECT_EQ(list(), before);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "cache/lwm/code_cache"));
}

TEST_F(MediaCommandsTest, EncodeTakesFolders) {
  const auto result = RunLwm(Encode("media", "--skip-bad --fps 5"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("passed over 1 file:"), std::string::npos) << result.err;
  const data::JsonlFile coded(folder_ / "coded.jsonl");
  ASSERT_EQ(coded.lines(), 4);
  EXPECT_EQ(coded.Parse(3)["path"], Path("media/clip.mp4"));
  EXPECT_EQ(coded.Parse(3)["frames"], 4);
  EXPECT_EQ(coded.Parse(3)["vision"].size(), 16u);
}

TEST_F(MediaCommandsTest, ExamplesAndPackEncodeWhatLinesName) {
  const std::string flags = " " + Tokenizer() + " --vqgan " + Path("vqgan") +
                            " --fields [caption],image_vision --input " + Path("media/lines.jsonl");
  const auto examples = RunLwm("examples" + flags);
  ASSERT_EQ(examples.exit_code, 0) << examples.err;
  ASSERT_EQ(examples.lines().size(), 3u);
  EXPECT_NE(examples.err.find("skipped 1 line\n"), std::string::npos) << examples.err;
  const Json first = Json::parse(examples.lines()[0]);
  int vision = 0;
  for (const Json& is_vision : first["vision_mask"]) vision += is_vision.get<int>();
  EXPECT_EQ(vision, 5);
  const auto packed = RunLwm("pack --length 64 --json --skip-bad-lines" + flags);
  ASSERT_EQ(packed.exit_code, 0) << packed.err;
  const Json statistics = Json::parse(packed.err.substr(packed.err.rfind("{\"")));
  EXPECT_EQ(statistics["vision_targets"], 5 + 10 + 10);
  EXPECT_EQ(statistics["skipped_lines"], 1);
}

TEST_F(MediaCommandsTest, PartOfAChatWithoutItsTypeIsNamedOrSkipped) {
  WriteFileAtomically(folder_ / "chat.jsonl",
                      R"({"chat": [{"role": "user", "content": [{"path": "media/0.png"}]}]}
{"chat": [{"role": "user", "content": [{"type": "image", "path": "media/0.png"}]}]}
)");
  ExpectFailure(RunLwm(Encode("chat.jsonl")), 1, "chat.jsonl:1: chat: field \"type\" is missing");
  const auto result = RunLwm(Encode("chat.jsonl", "--skip-bad"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const data::JsonlFile coded(folder_ / "coded.jsonl");
  ASSERT_EQ(coded.lines(), 1);
  EXPECT_EQ(coded.Parse(0)["chat"][0]["content"][0]["codes"].size(), 4u);
}

TEST_F(MediaCommandsTest, EncodeMakesTheFolderOfItsOutputFirst) {
  const auto result = RunLwm("encode --vqgan " + Path("vqgan") + " --input " + Path("media/0.png") +
                             " --code-cache " + Path("cache") + " --output " + Path("new/x.jsonl"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(std::filesystem::exists(folder_ / "new/x.jsonl"));
}

TEST_F(MediaCommandsTest, CodesOfASmallVqganNeedTheirNumberPerFrame) {
  ASSERT_EQ(RunLwm(Encode("media/lines.jsonl", "--skip-bad")).exit_code, 0);
  const std::string flags =
      " " + Tokenizer() + " --fields [caption],image_vision --input " + Path("coded.jsonl");
  const std::string too_few =
      "coded.jsonl:1: field \"image_vision\" has 4 codes, fewer than the 256";
  ExpectFailure(RunLwm("pack --length 64" + flags), 1, too_few);
  ExpectFailure(RunLwm("examples --strict" + flags), 1, too_few);
  const std::string known = flags + " --codes-per-frame 4 --codebook-size 50";
  const auto packed = RunLwm("pack --length 64 --json" + known);
  ASSERT_EQ(packed.exit_code, 0) << packed.err;
  EXPECT_EQ(Json::parse(packed.err)["vision_targets"], 5 + 10 + 10);
  const Json first = Json::parse(RunLwm("examples" + known).lines().at(0));
  EXPECT_EQ(first["tokens"][first["tokens"].size() - 5], 51) << "end of the last frame";
}

TEST_F(DataCommandsTest, ResultsThatCannotBeWrittenAreAnError) {
  const auto to_full_disk = [](const std::string& command) { return command + " > /dev/full"; };
  const auto result = RunLwmIn(
      to_full_disk,
      "examples " + Tokenizer() + " --input " + (GoldenFolder("data_dsl") / "data.jsonl").string(),
      "");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("could not be written"), std::string::npos) << result.err;
}

TEST_F(MediaCommandsTest, RecipeOfSourcesTrainsOnImagesAndText) {
  WriteFileAtomically(folder_ / "book.txt", "It was a dark and stormy night. The end.");
  WriteFileAtomically(folder_ / "r.toml", Cat(R"([model]
hidden_size = 32
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
vision_vocab_size = 52
[data]
tokenizer = ")",
                                              Path("tokenizer.model"), R"("
vqgan = ")",
                                              Path("vqgan"), R"("
row_tokens = 64
skip_bad_lines = true
[[data.source]]
paths = ")",
                                              Path("media/lines.jsonl"), R"("
share = 3
fields = ["[caption],image_vision", "[image_vision],caption"]
order = "epoch"
drop_text = 0.2
[[data.source]]
paths = ")",
                                              Path("book.txt"), R"("
[train]
run_folder = ")",
                                              Path("run"), R"("
steps = 2
rows_per_step = 4
)"));
  const auto result = RunLwm("train --config " + Path("r.toml"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("encoded 5 frames of media"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("1 bad lines were skipped"), std::string::npos) << result.err;
  const auto small =
      RunLwm("train --config " + Path("r.toml") +
             " --set model.vision_vocab_size=51 --set train.run_folder=" + Path("other"));
  EXPECT_NE(small.err.find("must be at least 52"), std::string::npos) << small.err;
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
