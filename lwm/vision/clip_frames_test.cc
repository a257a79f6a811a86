#include "lwm/vision/clip_frames.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_vqgan.h"

namespace lwm::vision {
namespace {
using testing_support::TemporaryFolder;
using testing_support::WriteGreyClip;

class ClipFramesTest : public testing::Test {
 protected:
  ClipFramesTest() { WriteGreyClip(folder_ / "a.mp4", 11); }

  // The numbers of the chosen frames, read off their grey.
  std::vector<int> Chosen(const ClipOptions& options) const {
    ClipFrames clip(folder_ / "a.mp4", options);
    std::vector<int> numbers;
    while (const auto frame = clip.Next()) numbers.push_back((frame->rgb_HWC[0] - 15) / 10);
    return numbers;
  }

  TemporaryFolder folder_;
};

TEST_F(ClipFramesTest, FramesAreChosenByNumberByRateAndByBoth) {
  EXPECT_EQ(Chosen({}).size(), 11u);
  EXPECT_EQ(Chosen({.max_frames = 3}), (std::vector{0, 5, 10}));
  EXPECT_EQ(Chosen({.frames_per_second = 4}), (std::vector{0, 3, 5, 8, 10}));
  EXPECT_EQ(Chosen({.frames_per_second = 5, .max_frames = 3}), (std::vector{0, 2, 4}));
  EXPECT_EQ(Chosen({.frames_per_second = 100}).size(), 11u);
}

TEST_F(ClipFramesTest, StartMovesTheFirstFrame) {
  EXPECT_EQ(Chosen({.start_seconds = 0.8}), (std::vector{8, 9, 10}));
  EXPECT_EQ(Chosen({.max_frames = 2, .start_seconds = 0.45}), (std::vector{5, 10}));
  EXPECT_EQ(Chosen({.frames_per_second = 5, .max_frames = 2, .start_seconds = 0.3}),
            (std::vector{3, 5}));
}

TEST_F(ClipFramesTest, StartBeyondTheEndIsAnError) {
  for (const ClipOptions& options :
       {ClipOptions{.start_seconds = 5}, ClipOptions{.max_frames = 2, .start_seconds = 5}}) {
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
