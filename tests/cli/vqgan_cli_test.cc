// `lwm vqgan` as a user runs it: folders with broken files, every output, training that is stopped.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/image_file.h"
#include "lwm/io/mp4_writer.h"
#include "lwm/io/safetensors.h"
#include "lwm/io/video_reader.h"
#include "lwm/run/metrics.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_vqgan.h"
#include "tests/cli/run_program.h"

namespace lwm {
namespace {
using testing_support::ProgramResult;
using testing_support::RunLwm;

io::RgbImage Plain(int64_t width, int64_t height, uint8_t value) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3), value)};
}

class VqganCliTest : public ::testing::Test {
 protected:
  VqganCliTest() {
    testing_support::WriteTinyVqgan(folder_ / "vqgan", 3);
    std::filesystem::create_directory(folder_ / "media");
    io::Mp4Writer video(folder_ / "media/b.mp4", 10);
    for (int i = 0; i < 5; ++i) video.Add(Plain(32, 24, static_cast<uint8_t>(40 * i)));
    video.Finish();
    io::WritePng(folder_ / "media/c.png", Plain(1, 1, 90));
  }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  ProgramResult Encode(const std::string& flags) const {
    return RunLwm("vqgan encode --dtype f32 --model " + Path("vqgan") + " --output " +
                  Path("codes.safetensors") + " " + flags);
  }
  ProgramResult Decode(const std::string& output) const {
    return RunLwm("vqgan decode --dtype f32 --model " + Path("vqgan") + " --input " +
                  Path("codes.safetensors") + " --fps 8 --output " + Path(output));
  }

  testing_support::TemporaryFolder folder_;
};

TEST_F(VqganCliTest, FramesOfAFolderGoToCodesAndBackToEveryOutput) {
  const ProgramResult encoded = Encode(Path("media") + " --batch 4 --latents");
  ASSERT_EQ(encoded.exit_code, 0) << encoded.err;
  ASSERT_EQ(encoded.lines().size(), 2u);
  EXPECT_NE(encoded.lines()[0].find("\"first\":0,\"frames\":5"), std::string::npos);
  EXPECT_NE(encoded.lines()[1].find("\"first\":5,\"frames\":1"), std::string::npos);
  EXPECT_NE(encoded.err.find("encoded 6 frames"), std::string::npos) << encoded.err;
  const io::SafetensorsFile codes(folder_ / "codes.safetensors");
  EXPECT_EQ(codes.info("codes").shape, (std::vector<int64_t>{6, 2, 2}));
  EXPECT_EQ(codes.info("latents").shape, (std::vector<int64_t>{6, 2, 2, 2}));
  for (const char* name : {"x.mp4", "x.gif"}) {
    const ProgramResult decoded = Decode(name);
    ASSERT_EQ(decoded.exit_code, 0) << decoded.err;
    EXPECT_EQ(io::CountFrames(folder_ / name), 6) << name;
  }
  EXPECT_EQ(Decode("x.safetensors").exit_code, 0);
  EXPECT_EQ(io::SafetensorsFile(folder_ / "x.safetensors").info("images").shape,
            (std::vector<int64_t>{6, 16, 16, 3}));
  EXPECT_EQ(Decode("pictures").exit_code, 0);
  EXPECT_EQ(io::ReadImage(folder_ / "pictures/000005.png").width, 16);
  EXPECT_EQ(Decode("x.png").exit_code, 2);
}

TEST_F(VqganCliTest, ImagesOfALongerRunAreNotMixedWithNewOnes) {
  ASSERT_EQ(Encode(Path("media")).exit_code, 0);
  ASSERT_EQ(Decode("pictures").exit_code, 0);
  WriteFileAtomically(folder_ / "pictures/7.png", "not named as ours are");
  WriteFileAtomically(folder_ / "pictures/notes.txt", "");
  EXPECT_EQ(Decode("pictures").exit_code, 0);  // the same images again
  ASSERT_EQ(Encode(Path("media/b.mp4")).exit_code, 0);
  const ProgramResult shorter = Decode("pictures");
  EXPECT_EQ(shorter.exit_code, 2);
  EXPECT_NE(shorter.err.find("holds 000005.png, which would pass for an image of this run"),
            std::string::npos)
      << shorter.err;
  std::filesystem::remove(folder_ / "pictures/000005.png");
  EXPECT_EQ(Decode("pictures/").exit_code, 0);
}

TEST_F(VqganCliTest, PlacesThatCannotBeWrittenAreNamedBeforeTheWork) {
  ASSERT_EQ(Encode(Path("media/c.png")).exit_code, 0);
  WriteFileAtomically(folder_ / "file", "");
  for (const char* name : {"none/x.png", "none/x.mp4", "file/pictures", "file"}) {
    const ProgramResult run = Decode(name);
    EXPECT_EQ(run.exit_code, 2) << name;
    EXPECT_NE(run.err.find("cannot write into "), std::string::npos) << run.err;
    EXPECT_EQ(run.err.find("decoded"), std::string::npos) << run.err;
  }
}

TEST_F(VqganCliTest, WhatIsForPathsOnlyIsRefusedBesideATensor) {
  for (const char* flag : {"--size 32", "--frames 2", "--fps 1", "--skip-bad"})
    EXPECT_EQ(Encode(std::string("--input x.safetensors ") + flag).exit_code, 2) << flag;
}

TEST_F(VqganCliTest, ConvertsIntoAFolderNamedWithASlashAndOnlyWhatItCan) {
  const std::string convert = "convert --from " + Path("vqgan") + " --to " + Path("new/");
  for (const char* flag : {" --quantize q8_0", " --add-vision", " --tokenizer x"}) {
    const ProgramResult refused = RunLwm(convert + flag);
    EXPECT_EQ(refused.exit_code, 2) << flag;
    EXPECT_NE(refused.err.find("for language models"), std::string::npos) << refused.err;
  }
  const ProgramResult converted = RunLwm(convert);
  EXPECT_EQ(converted.exit_code, 0) << converted.err;
  EXPECT_TRUE(std::filesystem::exists(folder_ / "new/config.json"));
}

TEST_F(VqganCliTest, BrokenFilesAreNamedOrCounted) {
  const std::string video = ReadFile(folder_ / "media/b.mp4");
  WriteFileAtomically(folder_ / "media/a_empty.mp4", "");
  WriteFileAtomically(folder_ / "media/d_cut.mp4", video.substr(0, video.size() / 2));
  WriteFileAtomically(folder_ / "media/e_text.png", "no image");
  WriteFileAtomically(folder_ / "media/notes.txt", "a caption");
  const ProgramResult strict = Encode(Path("media"));
  EXPECT_EQ(strict.exit_code, 1);
  EXPECT_NE(strict.err.find("a_empty.mp4"), std::string::npos) << strict.err;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "codes.safetensors"));
  const ProgramResult lenient = Encode(Path("media") + " --skip-bad");
  EXPECT_EQ(lenient.exit_code, 0) << lenient.err;
  EXPECT_EQ(lenient.lines().size(), 2u);
  for (const char* part :
       {"a_empty.mp4", "d_cut.mp4", "e_text.png", "notes.txt", "skipped 4 files"})
    EXPECT_NE(lenient.err.find(part), std::string::npos) << part << " in " << lenient.err;
  EXPECT_NE(lenient.err.find("skipped " + Path("media/e_text.png") + ": not an image"),
            std::string::npos)
      << "named once: " << lenient.err;
  const ProgramResult nothing = Encode(Path("media/e_text.png") + " --skip-bad");
  EXPECT_EQ(nothing.exit_code, 2) << nothing.err;
  EXPECT_NE(nothing.err.find("nothing could be encoded"), std::string::npos) << nothing.err;
}

TEST_F(VqganCliTest, TrainingThatIsStoppedSavesACheckpointAndGoesOn) {
  WriteFileAtomically(folder_ / "recipe.toml", Cat(R"([model]
block_out_channels = [4, 4]
layers_per_block = 1
latent_channels = 2
vq_embed_dim = 2
num_vq_embeddings = 8
norm_num_groups = 2
sample_size = 8
[data]
train = [")",
                                                   Path("media"), R"("]
[codebook]
start = "uniform"
[train]
run_folder = ")",
                                                   Path("run"), R"("
dtype = "f32"
steps = 1000000
batch = 2
)"));
  const std::string flags = "vqgan train --threads 1 --config " + Path("recipe.toml");
  const ProgramResult stopped =
      testing_support::RunLwmUntil(folder_ / "run/metrics.jsonl", "TERM", flags);
  EXPECT_EQ(stopped.exit_code, 0) << stopped.err;
  EXPECT_NE(stopped.err.find("(as asked)"), std::string::npos) << stopped.err;
  const size_t steps = run::ReadStepLog(folder_ / "run/metrics.jsonl").size();
  EXPECT_TRUE(
      std::filesystem::exists(folder_ / "run/checkpoints" / Cat("step_", steps) / "MANIFEST.json"));
  const ProgramResult more = RunLwm(Cat(flags, " --set train.steps=", steps + 1));
  EXPECT_EQ(more.exit_code, 0) << more.err;
  EXPECT_NE(more.err.find(Cat("step_", steps, ": step ", steps)), std::string::npos) << more.err;
}

}  // namespace
}  // namespace lwm
