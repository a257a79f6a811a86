#include "lwm/vision/video_frames.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/gif_writer.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_vqgan.h"

namespace lwm::vision {
namespace {
using testing_support::TemporaryFolder;
using testing_support::WriteGreyVideo;

class VideoFramesTest : public testing::Test {
 protected:
  VideoFramesTest() { WriteGreyVideo(folder_ / "a.mp4", 11); }

  // The numbers of the chosen frames, read off their grey.
  std::vector<int> Chosen(const VideoOptions& options) const {
    VideoFrames video(folder_ / "a.mp4", options);
    std::vector<int> numbers;
    while (const auto frame = video.Next()) numbers.push_back((frame->rgb_HWC[0] - 15) / 10);
    return numbers;
  }

  TemporaryFolder folder_;
};

TEST_F(VideoFramesTest, FramesAreChosenByNumberByRateAndByBoth) {
  EXPECT_EQ(Chosen({}).size(), 11u);
  EXPECT_EQ(Chosen({.max_frames = 3}), (std::vector{0, 5, 10}));
  EXPECT_EQ(Chosen({.frames_per_second = 4}), (std::vector{0, 3, 5, 8, 10}));
  EXPECT_EQ(Chosen({.frames_per_second = 5, .max_frames = 3}), (std::vector{0, 2, 4}));
  EXPECT_EQ(Chosen({.frames_per_second = 100}).size(), 11u);
}

TEST_F(VideoFramesTest, StartMovesTheFirstFrame) {
  EXPECT_EQ(Chosen({.start_seconds = 0.8}), (std::vector{8, 9, 10}));
  EXPECT_EQ(Chosen({.max_frames = 2, .start_seconds = 0.45}), (std::vector{5, 10}));
  EXPECT_EQ(Chosen({.frames_per_second = 5, .max_frames = 2, .start_seconds = 0.3}),
            (std::vector{3, 5}));
}

TEST_F(VideoFramesTest, RateAndStartGoByTheTimeOfAFrameNotByItsNumber) {
  {
    io::GifWriter writer(folder_ / "steady.gif", 10);
    for (int i = 0; i < 12; ++i)
      writer.Add({8, 8, std::vector<uint8_t>(8 * 8 * 3, static_cast<uint8_t>(15 + 10 * i))});
    writer.Finish();
  }
  // Six frames of 1 s each, then six of 0.1 s.
  std::string gif = ReadFile(folder_ / "steady.gif");
  size_t at = 0;
  for (int i = 0; i < 6; ++i) {
    at = gif.find("\x21\xf9\x04", at) + 4;
    gif.at(at) = 100;
  }
  WriteFileAtomically(folder_ / "a.mp4", gif);  // known by content
  EXPECT_EQ(Chosen({}).size(), 12u);
  EXPECT_EQ(Chosen({.frames_per_second = 1}), (std::vector{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(Chosen({.frames_per_second = 0.5}), (std::vector{0, 2, 4, 6}));
  EXPECT_EQ(Chosen({.start_seconds = 4.5}), (std::vector{5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(Chosen({.max_frames = 2, .start_seconds = 5.9}), (std::vector{6, 11}));
}

TEST_F(VideoFramesTest, NegativeOptionsAreRefused) {
  EXPECT_ERROR(Chosen({.max_frames = -1}), kInvalidArgument);
  EXPECT_ERROR(Chosen({.frames_per_second = -1}), kInvalidArgument);
  EXPECT_ERROR(Chosen({.start_seconds = -1}), kInvalidArgument);
}

TEST_F(VideoFramesTest, StartBeyondTheEndIsAnError) {
  for (const VideoOptions& options :
       {VideoOptions{.start_seconds = 5}, VideoOptions{.max_frames = 2, .start_seconds = 5}}) {
    try {
      Chosen(options);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
      EXPECT_NE(std::string(error.what()).find("after 5 s"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace lwm::vision
