// image, video, eval-images and generate --image on a model of random weights: files and
// messages.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "lwm/base/json.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/io/image_file.h"
#include "lwm/io/video_reader.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/llama_pieces.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_model_directory.h"
#include "lwm/testing/tiny_vqgan.h"
#include "tests/cli/run_program.h"

namespace lwm {
namespace {

using testing_support::TinyConfig;

namespace fs = std::filesystem;
using testing_support::ProgramResult;
using testing_support::RunLwm;

class ImagesCliTest : public testing::Test {
 protected:
  ImagesCliTest() {
    testing_support::WriteTinyModelDirectory(folder_ / "model",
                                             TinyConfig(/*vision_vocab_size=*/12),
                                             *testing_support::LlamaTokenizer());
    testing_support::WriteSmallestVqgan(folder_ / "model/vqgan");
    io::RgbImage red{20, 20, {}};
    for (int i = 0; i < 400; ++i) red.rgb_HWC.insert(red.rgb_HWC.end(), {200, 10, 10});
    io::WritePng(folder_ / "red.png", red);
    WriteFileAtomically(folder_ / "pairs.jsonl",
                        "{\"caption\": \"red\", \"image_vision\": \"red.png\"}\n"
                        "{\"caption\": \"green\", \"image_vision\": \"red.png\"}\n");
  }

  ProgramResult Run(const std::string& command, const std::string& flags) const {
    return RunLwm(command + " --dtype f32 --model " + Path("model") + " " + flags);
  }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  const testing_support::TemporaryFolder folder_;
};

TEST_F(ImagesCliTest, ImageWritesAImageAGridOrAFolder) {
  const std::string prompt = "--prompt 'a red apple' --scale 3 --seed 7 ";
  EXPECT_EQ(Run("image", prompt + "--output " + Path("one.png")).exit_code, 0);
  EXPECT_EQ(io::ReadImage(folder_ / "one.png").width, 8);
  EXPECT_EQ(Run("image", prompt + "--n 3 --columns 2 --output " + Path("grid.png")).exit_code, 0);
  EXPECT_EQ(io::ReadImage(folder_ / "grid.png").height, 2 * 8 + 3 * 2);
  const ProgramResult run = Run("image", prompt + "--prompt dog --output " + Path("folder"));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.err.find("drew 16 of 16 codes in 2 rows"), std::string::npos) << run.err;
  // The first row of a batch is the one that is drawn alone.
  EXPECT_EQ(ReadFile(folder_ / "folder/0.png"), ReadFile(folder_ / "one.png"));
  EXPECT_TRUE(fs::exists(folder_ / "folder/1.png"));
  EXPECT_EQ(Run("image", prompt + "--output x.jpg").exit_code, 2);
}

TEST_F(ImagesCliTest, FramesHaveTheSizeThatTheModelWasTrainedOn) {
  Json config = ReadJsonFile(folder_ / "model/config.json");
  config["codes_per_frame"] = 36;  // 12 x 12 pixels; the VQGAN was made for 8 x 8
  WriteFileAtomically(folder_ / "model/config.json", config.dump());
  ProgramResult run = Run("image", "--prompt red --output " + Path("one.png"));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(io::ReadImage(folder_ / "one.png").width, 12);
  run = Run("video", "--image " + Path("red.png") + " --frames 1 --output " + Path("clip.gif"));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(io::ReadImage(folder_ / "clip.gif").width, 12);
  EXPECT_EQ(Run("eval-pictures", "--pairs " + Path("pairs.jsonl")).exit_code, 0);
  EXPECT_EQ(RunLwm("convert --from " + Path("model") + " --to " + Path("copy")).exit_code, 0);
  EXPECT_EQ(ReadJsonFile(folder_ / "copy/config.json").at("codes_per_frame"), 36);
}

TEST_F(ImagesCliTest, VideoGoesOnFromImageOrVideo) {
  ProgramResult run =
      Run("video", "--image " + Path("red.png") + " --prompt red --frames 3 --fps 4 --output " +
                       Path("clip.mp4"));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.err.find("4 frames, 1 of them given"), std::string::npos) << run.err;
  EXPECT_EQ(io::CountFrames(folder_ / "clip.mp4"), 4);
  run = Run("video", "--input " + Path("clip.mp4") +
                         " --keep-frames 2 --frames 1 --fps 4 --output " + Path("more.gif"));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.err.find("3 frames, 2 of them given"), std::string::npos) << run.err;
  run = Run("video", "--output " + Path("x.mp4"));
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.err.find("--prompt, --image or --input"), std::string::npos) << run.err;
}

TEST_F(ImagesCliTest, GenerateWritesTextAboutAImage) {
  const std::string flags = "--temperature 0 --ignore-eos --max-new-tokens 4 --image ";
  const ProgramResult run = Run("generate", flags + Path("red.png"));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_FALSE(run.out.empty());
  EXPECT_EQ(Run("generate", flags + Path("none.png")).exit_code, 1);
  EXPECT_EQ(Run("generate", "").exit_code, 2);
  EXPECT_EQ(Run("generate", "--prompt red --max-frames 2").exit_code, 2);
}

TEST_F(ImagesCliTest, SpecialTokensOfAPromptAboutAImageAreRead) {
  const std::string flags =
      "--temperature 0 --ignore-eos --max-new-tokens 4 --image " + Path("red.png") + " --prompt '";
  const std::string plain = Run("generate", flags + "{image}<s>'").out;
  EXPECT_NE(Run("generate", flags + "{image}<s>' --parse-special").out, plain);
  EXPECT_EQ(Run("generate", flags + "{image}'").out, Run("generate", flags + "'").out);
}

TEST_F(ImagesCliTest, FoldersOfImagesHoldThoseOfOneRun) {
  const std::string prompt = "--prompt red --output " + Path("folder");
  ASSERT_EQ(Run("image", prompt + " --n 2").exit_code, 0);
  EXPECT_EQ(Run("image", prompt + " --n 2").exit_code, 0);
  const ProgramResult fewer = Run("image", prompt);
  EXPECT_EQ(fewer.exit_code, 2);
  EXPECT_NE(fewer.err.find("holds 1.png"), std::string::npos) << fewer.err;
  const ProgramResult written =
      Run("generate", "--max-new-tokens 2 --prompt red --pictures " + Path("folder"));
  EXPECT_EQ(written.exit_code, 2);
  EXPECT_NE(written.err.find("would pass for an image of this run"), std::string::npos)
      << written.err;
  EXPECT_EQ(Run("image", "--prompt red --output " + Path("none/x.png")).exit_code, 2);
}

TEST_F(ImagesCliTest, EvalImagesPrintsOneObject) {
  const ProgramResult run =
      Run("eval-pictures", "--json --pairs " + Path("pairs.jsonl") + " --grid " + Path("grid.png"));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  const Json scores = ParseJson(run.out, "stdout");
  EXPECT_EQ(scores.at("captions_drawn"), 2);
  EXPECT_EQ(scores.at("pairs_described"), 2);
  EXPECT_GT(scores.at("code_nats_right_caption").get<double>(), 0);
  EXPECT_TRUE(fs::exists(folder_ / "grid.png"));
}

}  // namespace
}  // namespace lwm
