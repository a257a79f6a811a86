#include "lwm/vision/media_frames.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/image_file.h"
#include "lwm/io/mp4_writer.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/vision/frames.h"

namespace lwm::vision {
namespace {
namespace fs = std::filesystem;
using testing_support::TemporaryFolder;

io::RgbImage Plain(int64_t width, int64_t height, uint8_t value) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3), value)};
}

// `frames` grey frames at 10 per second, frame i of value 20 + 10 i.
void WriteVideo(const fs::path& path, int64_t frames) {
  io::Mp4Writer writer(path, 10);
  for (int64_t i = 0; i < frames; ++i) writer.Add(Plain(32, 24, static_cast<uint8_t>(20 + 10 * i)));
  writer.Finish();
}

// The values of all frames, rounded to the tens that WriteVideo wrote.
std::vector<int> Values(MediaFrames& media) {
  std::vector<int> values;
  while (const auto frame = media.Next()) {
    EXPECT_EQ(frame->width, 16);
    EXPECT_EQ(frame->height, 16);
    values.push_back((frame->rgb_HWC[0] + 5) / 10 * 10);
  }
  return values;
}

MediaOptions Small() {
  MediaOptions options;
  options.size = 16;
  return options;
}

TEST(MediaFramesTest, HiddenFilesAndLinksThatLeadNowhereAreSkipped) {
  const TemporaryFolder folder;
  WriteFileAtomically(folder / "._c.png", "not an image");
  io::WritePng(folder / "c.png", Plain(1, 1, 100));
  fs::create_symlink("a.png", folder / "a.png");  // to itself
  fs::create_symlink("none", folder / "b.mp4");
  fs::create_directory(folder / "d.png");
  const MediaFolder listed = ListMedia(folder.path());
  EXPECT_EQ(listed.files, std::vector<fs::path>{folder / "c.png"});
  ASSERT_EQ(listed.skipped.size(), 3u);
  EXPECT_EQ(listed.skipped[0].path, folder / "._c.png");
  EXPECT_EQ(listed.skipped[1].path, folder / "a.png");
  EXPECT_EQ(listed.skipped[2].path, folder / "b.mp4");
}

TEST(MediaFramesTest, FoldersAreReadInOrderOfNamesAndItemsSayWhere) {
  const TemporaryFolder folder;
  io::WritePng(folder / "b.png", Plain(1, 1, 100));
  WriteVideo(folder / "a.mp4", 3);
  WriteFileAtomically(folder / "captions.txt", "x");
  MediaFrames media({folder.path()}, Small());
  EXPECT_EQ(Values(media), (std::vector{20, 30, 40, 100}));
  ASSERT_EQ(media.items().size(), 2u);
  EXPECT_EQ(media.items()[0].frames, 3);
  EXPECT_EQ(media.items()[1].first, 3);
  ASSERT_EQ(media.skipped().size(), 1u);
  EXPECT_EQ(media.skipped()[0].path.filename(), "captions.txt");
}

TEST(MediaFramesTest, LinksThatLeadNowhereAreListed) {
  const TemporaryFolder folder;
  io::WritePng(folder / "a.png", Plain(1, 1, 100));
  std::filesystem::create_symlink(folder / "none.png", folder / "b.png");
  std::filesystem::create_directory(folder / "c");
  const MediaFrames media({folder.path()}, Small());
  ASSERT_EQ(media.skipped().size(), 1u);
  EXPECT_EQ(media.skipped()[0].path.filename(), "b.png");
  EXPECT_NE(media.skipped()[0].reason.find("leads nowhere"), std::string::npos);
}

TEST(MediaFramesTest, FramesAreChosenByNumberOrByRate) {
  const TemporaryFolder folder;
  WriteVideo(folder / "a.mp4", 11);
  MediaOptions options = Small();
  options.max_frames = 3;
  MediaFrames by_number({folder / "a.mp4"}, options);
  EXPECT_EQ(Values(by_number), (std::vector{20, 70, 120}));
  options.max_frames = 0;
  options.frames_per_second = 4;
  MediaFrames by_rate({folder / "a.mp4"}, options);
  EXPECT_EQ(Values(by_rate), (std::vector{20, 50, 70, 100, 120}));
  options.max_frames = 2;
  EXPECT_ERROR(MediaFrames({folder / "a.mp4"}, options), kInvalidArgument);
}

TEST(MediaFramesTest, BrokenFilesStopOrAreCounted) {
  const TemporaryFolder folder;
  io::WritePng(folder / "a.png", Plain(8, 8, 50));
  const std::string whole = ReadFile(folder / "a.png");
  WriteFileAtomically(folder / "b.png", whole.substr(0, whole.size() - 20));
  WriteFileAtomically(folder / "c.mp4", "");
  io::WritePng(folder / "d.png", Plain(8, 8, 60));
  MediaFrames strict({folder.path()}, Small());
  EXPECT_TRUE(strict.Next().has_value());
  EXPECT_ERROR(strict.Next(), kCorruptData);
  MediaOptions options = Small();
  options.skip_bad = true;
  MediaFrames lenient({folder.path()}, options);
  EXPECT_EQ(Values(lenient), (std::vector{50, 60}));
  ASSERT_EQ(lenient.skipped().size(), 2u);
  EXPECT_EQ(lenient.skipped()[0].path.filename(), "b.png");
  EXPECT_NE(lenient.skipped()[1].reason.find("c.mp4"), std::string::npos);
}

TEST(MediaFramesTest, ImagesTooThinToCropAreNamedOrCounted) {
  const TemporaryFolder folder;
  io::WritePng(folder / "a.png", Plain(1, 3000, 50));
  io::WritePng(folder / "b.png", Plain(3, 40, 60));
  MediaFrames strict({folder.path()}, Small());
  try {
    strict.Next();
    ADD_FAILURE() << "48,000 pixels high";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("a.png: 1 x 3000"), std::string::npos);
  }
  MediaOptions options = Small();
  options.skip_bad = true;
  MediaFrames lenient({folder.path()}, options);
  EXPECT_EQ(Values(lenient), (std::vector{60}));
  EXPECT_EQ(lenient.skipped().size(), 1u);
}

TEST(MediaFramesTest, NothingToReadIsAnError) {
  const TemporaryFolder folder;
  EXPECT_ERROR(MediaFrames({folder.path()}, Small()), kInvalidArgument);
  EXPECT_ERROR(MediaFrames({folder / "none.png"}, Small()), kNotFound);
}

TEST(FramesTest, BytesSurviveTheTensor) {
  io::RgbImage image{16, 16, {}};
  for (int i = 0; i < 16 * 16 * 3; ++i) image.rgb_HWC.push_back(static_cast<uint8_t>(i));
  const at::Tensor images = TensorOfFrames({image, image});
  EXPECT_EQ(images.sizes(), (at::IntArrayRef{2, 16, 16, 3}));
  EXPECT_EQ(images.min().item<float>(), -1.0F);
  EXPECT_EQ(images.max().item<float>(), 1.0F);
  const auto frames = FramesOfTensor(images + 1e-5);  // above the cut to whole numbers
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[1].rgb_HWC, image.rgb_HWC);
}

TEST(FramesTest, ValuesBeyondTheRangeAreClipped) {
  const at::Tensor images = at::tensor({-7.0F, 0.999F, 3.0F}).view({1, 1, 1, 3});
  EXPECT_EQ(FramesOfTensor(images)[0].rgb_HWC, (std::vector<uint8_t>{0, 254, 255}));
}

TEST(FramesTest, MixedSizesAreRefused) {
  EXPECT_ERROR(TensorOfFrames({Plain(4, 4, 1), Plain(4, 5, 1)}), kInvalidArgument);
  EXPECT_ERROR(TensorOfFrames({}), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::vision
