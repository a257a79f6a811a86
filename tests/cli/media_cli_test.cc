// Odd and broken media as a user meets them: what `lwm vqgan encode` says and does.
#include <gtest/gtest.h>

#include <string>

#include "lwm/base/file.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_vqgan.h"
#include "tests/cli/run_program.h"

namespace lwm {
namespace {
using testing_support::GoldenFolder;
using testing_support::ProgramResult;
using testing_support::RunLwm;

class MediaCliTest : public ::testing::Test {
 protected:
  MediaCliTest() { testing_support::WriteTinyVqgan(folder_ / "vqgan", 3); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  ProgramResult Encode(const std::string& path, const std::string& flags = "") const {
    return RunLwm("vqgan encode --dtype f32 --model " + Path("vqgan") + " --output " +
                  Path("codes.safetensors") + " " + path + " " + flags);
  }
  // The first part of a golden file, under its own name.
  std::string Part(const std::string& name, double share) const {
    const std::string whole = ReadFile(GoldenFolder("media") / name);
    const auto size = static_cast<size_t>(share * static_cast<double>(whole.size())) | 1;
    WriteFileAtomically(folder_ / name, whole.substr(0, size));
    return Path(name);
  }

  testing_support::TemporaryFolder folder_;
};

TEST_F(MediaCliTest, WholeVideosCostNoWord) {
  for (const char* name : {"whole.mkv", "whole.ts", "size_change.ts", "trimmed.mp4", "varying.mkv",
                           "whole.gif", "bt2020.mp4"}) {
    const ProgramResult run = Encode((GoldenFolder("media") / name).string());
    EXPECT_EQ(run.exit_code, 0) << run.err;
    EXPECT_EQ(run.err.find("warning"), std::string::npos) << run.err;
  }
}

TEST_F(MediaCliTest, CutVideoIsRefusedInOneLineAndKeptInPartOnRequest) {
  const std::string part = Part("whole.mkv", 0.55);
  const ProgramResult strict = Encode(part);
  EXPECT_EQ(strict.exit_code, 1);
  EXPECT_NE(strict.err.find("truncated"), std::string::npos) << strict.err;
  EXPECT_NE(strict.err.find("of 30 frames"), std::string::npos) << strict.err;
  EXPECT_EQ(strict.err.find("matroska"), std::string::npos) << "FFmpeg's own words: " << strict.err;
  const ProgramResult lenient = Encode(part, "--skip-bad");
  EXPECT_EQ(lenient.exit_code, 0) << lenient.err;
  EXPECT_NE(lenient.err.find("truncated"), std::string::npos) << lenient.err;
}

TEST_F(MediaCliTest, VideoWithDamagedFramesIsReadWithOneWarning) {
  std::string damaged = ReadFile(GoldenFolder("media") / "whole.ts");
  for (size_t i = 0; i < 100; ++i) damaged[10 * 188 + 60 + i] ^= 0x5a;
  WriteFileAtomically(folder_ / "x.ts", damaged);
  for (const char* flags : {"", "--frames 5"}) {
    const ProgramResult run = Encode(Path("x.ts"), flags);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    const size_t at = run.err.find("warning: " + Path("x.ts") + ": the video is damaged");
    EXPECT_NE(at, std::string::npos) << run.err;
    EXPECT_EQ(run.err.find("warning", at + 1), std::string::npos) << run.err;
  }
}

TEST_F(MediaCliTest, SoundIsNoVideoWhateverItsName) {
  for (const char* name : {"song.mp4", "song.m4a", "song"}) {
    std::filesystem::copy_file(GoldenFolder("media") / "song.mp4", folder_ / name);
    const ProgramResult run = Encode(Path(name));
    EXPECT_EQ(run.exit_code, 1) << name;
    EXPECT_NE(run.err.find("has sound and a cover image only"), std::string::npos) << run.err;
  }
}

}  // namespace
}  // namespace lwm
