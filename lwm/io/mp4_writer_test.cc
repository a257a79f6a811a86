#include "lwm/io/mp4_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/video_reader.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/plain_image.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {
using testing_support::PlainImage;
using testing_support::TemporaryFolder;

void WriteVideo(const std::filesystem::path& path, int64_t frames, int64_t side) {
  Mp4Writer writer(path, 10);
  for (int64_t i = 0; i < frames; ++i)
    writer.Add(PlainImage(side, side, static_cast<uint8_t>(10 + 20 * i), 60, 90));
  writer.Finish();
}

TEST(Mp4WriterTest, FramesReadBackInOrderAndNumber) {
  const TemporaryFolder folder;
  WriteVideo(folder / "x.mp4", 7, 32);
  EXPECT_EQ(CountFrames(folder / "x.mp4"), 7);
  VideoReader reader(folder / "x.mp4");
  EXPECT_NEAR(reader.frames_per_second(), 10, 0.01);
  EXPECT_EQ(reader.stated_frames(), 7);
  for (int i = 0; i < 7; ++i) {
    ASSERT_TRUE(reader.Grab());
    const RgbImage frame = reader.Retrieve();
    EXPECT_EQ(frame.width, 32);
    EXPECT_NEAR(frame.rgb_HWC[0], 10 + 20 * i, 4);
    EXPECT_NEAR(frame.rgb_HWC[1], 60, 4);
    EXPECT_NEAR(frame.rgb_HWC[2], 90, 4);
  }
  EXPECT_FALSE(reader.Grab());
  EXPECT_EQ(reader.warning(), "");
}

TEST(Mp4WriterTest, IsH264AndOddSizesAreWidened) {
  const TemporaryFolder folder;
  WriteVideo(folder / "x.mp4", 2, 17);
  EXPECT_NE(ReadFile(folder / "x.mp4").find("avc1"), std::string::npos);
  VideoReader reader(folder / "x.mp4");
  ASSERT_TRUE(reader.Grab());
  const RgbImage frame = reader.Retrieve();
  EXPECT_EQ(frame.width, 18);
  EXPECT_EQ(frame.height, 18);
  EXPECT_NEAR(frame.rgb_HWC[frame.rgb_HWC.size() - 1], 90, 4);
}

TEST(Mp4WriterTest, UnfinishedOrEmptyClipLeavesNothing) {
  const TemporaryFolder folder;
  {
    Mp4Writer writer(folder / "x.mp4", 10);
    writer.Add(PlainImage(16, 16, 1, 2, 3));
    EXPECT_ERROR(writer.Add(PlainImage(18, 16, 1, 2, 3)), kInvalidArgument);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  Mp4Writer writer(folder / "y.mp4", 10);
  EXPECT_ERROR(writer.Finish(), kInvalidArgument);
  EXPECT_ERROR(Mp4Writer(folder / "z.mp4", 0), kInvalidArgument);
}

TEST(Mp4WriterTest, MissingFolderIsAnError) {
  const TemporaryFolder folder;
  Mp4Writer writer(folder / "none/x.mp4", 10);
  try {
    writer.Add(PlainImage(16, 16, 1, 2, 3));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << error.what();
  }
}

TEST(Mp4WriterTest, TwoWritersOfOneClipDoNotDisturbEachOther) {
  const TemporaryFolder folder;
  Mp4Writer first(folder / "x.mp4", 10), last(folder / "x.mp4", 10);
  for (int i = 0; i < 3; ++i) first.Add(PlainImage(32, 32, 200, 60, 90));
  for (int i = 0; i < 5; ++i) last.Add(PlainImage(16, 16, 10, 60, 90));
  first.Finish();
  EXPECT_EQ(CountFrames(folder / "x.mp4"), 3);
  last.Finish();
  EXPECT_EQ(CountFrames(folder / "x.mp4"), 5);
}

TEST(Mp4WriterTest, ColonInARelativeNameIsNoProtocol) {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  EXPECT_NO_THROW({
    WriteVideo("take:2.mp4", 3, 32);
    EXPECT_EQ(CountFrames("take:2.mp4"), 3);
  });
  std::filesystem::current_path(before);
}

// In a process of its own: the limit cannot be raised again.
int ExitCodeOfFullDisk(const std::filesystem::path& path) {
  signal(SIGXFSZ, SIG_IGN);
  const rlimit limit = {1000, 1000};
  setrlimit(RLIMIT_FSIZE, &limit);
  try {
    WriteVideo(path, 12, 64);
  } catch (const Error& error) {
    return error.code() == ErrorCode::kResourceExhausted ? 3 : 4;
  }
  return 5;
}

TEST(Mp4WriterDeathTest, FullDiskIsToldAndLeavesNothing) {
  const TemporaryFolder folder;
  EXPECT_EXIT(_exit(ExitCodeOfFullDisk(folder / "x.mp4")), testing::ExitedWithCode(3), "");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace lwm::io
