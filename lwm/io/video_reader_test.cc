#include "lwm/io/video_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/mp4_writer.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/message_of.h"
#include "lwm/testing/plain_image.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;
using testing_support::GoldenFolder;
using testing_support::MessageOf;
using testing_support::PlainImage;
using testing_support::TemporaryFolder;

fs::path Golden(const std::string& name) { return GoldenFolder("media") / name; }

std::vector<RgbImage> Frames(const fs::path& path) {
  VideoReader reader(path);
  std::vector<RgbImage> frames;
  while (reader.Grab()) frames.push_back(reader.Retrieve());
  EXPECT_EQ(reader.warning(), "") << path;
  return frames;
}

// The colour in the middle of the quarter at the left or right, at the top or bottom.
std::vector<int> Quarter(const RgbImage& image, int right, int bottom) {
  const int64_t x = image.width * (1 + 2 * right) / 4, y = image.height * (1 + 2 * bottom) / 4;
  const auto at = static_cast<size_t>(3 * (y * image.width + x));
  return {image.rgb_HWC.at(at), image.rgb_HWC.at(at + 1), image.rgb_HWC.at(at + 2)};
}

void ExpectNear(const std::vector<int>& got, const std::vector<int>& want, int tolerance,
                const std::string& what) {
  for (size_t c = 0; c < 3; ++c)
    EXPECT_NEAR(got[c], want[c], tolerance) << what << ", channel " << c;
}

const std::vector<int> kRed = {220, 30, 30}, kGreen = {30, 180, 30}, kBlue = {30, 30, 220},
                       kYellow = {230, 220, 40};

TEST(VideoColourTest, MatrixAndRangeAreThoseOfTheStream) {
  for (const char* name :
       {"bt601.mp4", "bt709.mp4", "bt2020.mp4", "full_range.mp4", "wide_pixels.mp4"}) {
    const std::vector<RgbImage> frames = Frames(Golden(name));
    ASSERT_EQ(frames.size(), 1u) << name;
    EXPECT_EQ(frames[0].width, 64) << name;  // wide_pixels.mp4 stores 32 columns
    EXPECT_EQ(frames[0].height, 64) << name;
    ExpectNear(Quarter(frames[0], 0, 0), kRed, 4, name);
    ExpectNear(Quarter(frames[0], 1, 0), kGreen, 4, name);
    ExpectNear(Quarter(frames[0], 0, 1), kBlue, 4, name);
    ExpectNear(Quarter(frames[0], 1, 1), kYellow, 4, name);
  }
}

TEST(VideoColourTest, TransparencyIsLaidOnWhite) {
  const std::vector<RgbImage> frames = Frames(Golden("alpha.mov"));
  ASSERT_EQ(frames.size(), 1u);
  ExpectNear(Quarter(frames[0], 0, 1), kBlue, 0, "opaque half");
  ExpectNear(Quarter(frames[0], 1, 1), {255, 255, 255}, 0, "clear half");
}

TEST(VideoSizeTest, EveryFrameHasItsOwnSizeAndPixels) {
  for (const char* name : {"size_change.webm", "size_change.ts"}) {
    const std::vector<RgbImage> frames = Frames(Golden(name));
    ASSERT_EQ(frames.size(), 10u) << name;
    for (size_t i = 0; i < 10; ++i) {
      EXPECT_EQ(frames[i].width, i < 5 ? 96 : 48) << name << i;
      ExpectNear(Quarter(frames[i], 1, 1), i < 5 ? std::vector{254, 0, 0} : std::vector{0, 0, 254},
                 3, name);
    }
  }
}

TEST(VideoSizeTest, FramesAreLimitedBeforeTheyAreAllocated) {
  std::string gif = ReadFile(Golden("whole.gif"));
  gif.replace(6, 4, "\x20\x4e\x20\x4e");  // 20,000 x 20,000
  const std::string message =
      MessageOf([&] { VideoReader(std::as_bytes(std::span(gif)), "bomb.gif").Grab(); },
                ErrorCode::kCorruptData);
  EXPECT_NE(message.find("67108864"), std::string::npos) << message;
}

TEST(VideoSizeTest, PixelAspectThatWidensBeyondTheLimitIsRefused) {
  std::string mp4 = ReadFile(Golden("wide_pixels.mp4"));
  const size_t at = mp4.find("pasp");
  ASSERT_NE(at, std::string::npos);
  mp4.replace(at + 4, 4, std::string("\0\1\0\0", 4));  // 65536:1, 64 times too wide
  VideoReader reader(std::as_bytes(std::span(mp4)), "wide");
  ASSERT_TRUE(reader.Grab());
  const std::string message = MessageOf([&] { reader.Retrieve(); }, ErrorCode::kCorruptData);
  EXPECT_NE(message.find("aspect"), std::string::npos) << message;
}

TEST(VideoTimeTest, EditListsAndVaryingRatesAreFollowed) {
  EXPECT_EQ(Frames(Golden("trimmed.mp4")).size(), 14u);
  VideoReader varying(Golden("varying.mkv"));
  std::vector<double> times;
  while (varying.Grab()) times.push_back(varying.seconds());
  ASSERT_EQ(times.size(), 14u);
  for (size_t i = 0; i < 14; ++i)
    EXPECT_NEAR(times[i], i < 10 ? 0.1 * static_cast<double>(i) : 0.5 * static_cast<double>(i - 8),
                2e-3);
  EXPECT_EQ(varying.warning(), "");
}

TEST(VideoTimeTest, TimesAreThoseOfTheFrames) {
  const TemporaryFolder folder;
  Mp4Writer writer(folder / "x.mp4", 10);
  for (int i = 0; i < 12; ++i) writer.Add(PlainImage(32, 32, static_cast<uint8_t>(20 * i), 60, 90));
  writer.Finish();
  VideoReader reader(folder / "x.mp4");
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(reader.Grab());
    EXPECT_NEAR(reader.seconds(), 0.1 * i, 1e-3);
  }
}

TEST(VideoCutTest, WholeFilesGiveAllFramesWithoutAWarning) {
  for (const char* name : {"whole.mkv", "whole.ts", "whole.mp4", "whole.flv", "whole.avi",
                           "whole.webm", "whole.gif", "sound.mkv"})
    EXPECT_EQ(Frames(Golden(name)).size(), 30u) << name;
  EXPECT_EQ(Frames(Golden("whole.mpg")).size(), 75u);
}

// Reads the whole video and returns its error or warning.
std::string Complaint(const std::string& bytes) {
  try {
    VideoReader reader(std::as_bytes(std::span(bytes)), "part");
    while (reader.Grab()) reader.Retrieve();
    return reader.warning();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    return error.what();
  }
}

TEST(VideoCutTest, CutFilesAreSaidToBeTruncated) {
  for (const char* name : {"whole.mkv", "whole.ts", "whole.mp4", "whole.flv", "whole.avi",
                           "whole.webm", "whole.gif", "whole.mpg", "sound.mkv"}) {
    const std::string whole = ReadFile(Golden(name));
    for (const double share : {0.3, 0.55, 0.9}) {
      const auto size = static_cast<size_t>(share * static_cast<double>(whole.size()));
      const std::string complaint = Complaint(whole.substr(0, size | 1));
      EXPECT_NE(complaint.find("truncated"), std::string::npos)
          << name << " " << share << ": " << complaint;
      EXPECT_EQ(complaint.find('\n'), std::string::npos);
    }
  }
}

TEST(VideoCutTest, ErrorSaysHowManyFramesOfHowManyWereRead) {
  const std::string whole = ReadFile(Golden("whole.mkv"));
  const std::string complaint = Complaint(whole.substr(0, whole.size() / 2));
  EXPECT_NE(complaint.find("of 30 frames"), std::string::npos) << complaint;
  EXPECT_NE(complaint.find("of 3.0 s"), std::string::npos) << complaint;
}

TEST(VideoCutTest, DamageInTheMiddleIsAWarning) {
  std::string damaged = ReadFile(Golden("whole.ts"));
  for (size_t i = 0; i < 100; ++i) damaged[10 * 188 + 60 + i] ^= 0x5a;
  const std::string complaint = Complaint(damaged);
  EXPECT_NE(complaint.find("damaged"), std::string::npos) << complaint;
  EXPECT_NE(complaint.find("frames with errors"), std::string::npos) << complaint;
}

TEST(VideoOpenTest, CoverOfASongIsNoVideo) {
  const std::string message =
      MessageOf([] { VideoReader reader(Golden("song.mp4")); }, ErrorCode::kCorruptData);
  EXPECT_NE(message.find("has sound and a cover image only"), std::string::npos) << message;
}

TEST(VideoOpenTest, DamagedEmptyAndMissingFilesAreNamed) {
  const TemporaryFolder folder;
  const std::string whole = ReadFile(Golden("whole.mp4"));
  for (const size_t bytes : {size_t{0}, size_t{20}, size_t{200}}) {
    WriteFileAtomically(folder / "cut.mp4", whole.substr(0, bytes));
    const std::string message =
        MessageOf([&] { VideoReader reader(folder / "cut.mp4"); }, ErrorCode::kCorruptData);
    EXPECT_NE(message.find("cut.mp4"), std::string::npos);
  }
  MessageOf([&] { VideoReader reader(folder / "none.mp4"); }, ErrorCode::kNotFound);
  MessageOf([&] { VideoReader reader(folder.path()); }, ErrorCode::kNotFound);
}

TEST(VideoOpenTest, PlaylistsOpenNoOtherFile) {
  const TemporaryFolder folder;
  fs::copy(Golden("whole.ts"), folder / "a.ts");
  WriteFileAtomically(folder / "x.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n" +
                                             (folder / "a.ts").string() + "\n#EXT-X-ENDLIST\n");
  WriteFileAtomically(folder / "x.ffconcat", "ffconcat version 1.0\nfile a.ts\n");
  for (const char* name : {"x.m3u8", "x.ffconcat"})
    MessageOf([&] { VideoReader reader(folder / name); }, ErrorCode::kCorruptData);
}

// Puts big-endian numbers at `offset` of the body of the first box of that type.
void Patch(std::string& mp4, const std::string& type, size_t offset,
           const std::vector<int32_t>& values) {
  size_t at = mp4.find(type) + 4 + offset;
  for (const int32_t value : values)
    for (int byte = 3; byte >= 0; --byte)
      mp4.at(at++) = static_cast<char>(static_cast<uint32_t>(value) >> (8 * byte));
}

TEST(VideoTurnTest, DisplayMatrixTurnsAndFlips) {
  struct Case {
    std::vector<int32_t> matrix;
    std::vector<int> top_left, top_right;
  };
  constexpr int32_t k1 = 65536;
  const std::string whole = ReadFile(Golden("bt601.mp4"));
  for (const Case& turned :
       {Case{{k1, 0, 0, 0, k1}, kRed, kGreen}, Case{{0, k1, 0, -k1, 0}, kBlue, kRed},
        Case{{-k1, 0, 0, 0, -k1}, kYellow, kBlue}, Case{{0, -k1, 0, k1, 0}, kGreen, kYellow},
        Case{{-k1, 0, 0, 0, k1}, kGreen, kRed}, Case{{k1, 0, 0, 0, -k1}, kBlue, kYellow},
        Case{{0, k1, 0, k1, 0}, kRed, kBlue}, Case{{0, -k1, 0, -k1, 0}, kYellow, kGreen}}) {
    std::string mp4 = whole;
    Patch(mp4, "tkhd", 40, turned.matrix);
    VideoReader reader(std::as_bytes(std::span(mp4)), "turned");
    ASSERT_TRUE(reader.Grab());
    const RgbImage frame = reader.Retrieve();
    ExpectNear(Quarter(frame, 0, 0), turned.top_left, 4, "top left");
    ExpectNear(Quarter(frame, 1, 0), turned.top_right, 4, "top right");
  }
}

TEST(VideoThreadsTest, FramesAreTheSameWithMoreThreads) {
  const std::vector<RgbImage> one = Frames(Golden("whole.mp4"));
  SetVideoThreads(3);
  const std::vector<RgbImage> three = Frames(Golden("whole.mp4"));
  SetVideoThreads(1);
  ASSERT_EQ(one.size(), three.size());
  for (size_t i = 0; i < one.size(); ++i) EXPECT_EQ(one[i].rgb_HWC, three[i].rgb_HWC) << i;
  EXPECT_ERROR(SetVideoThreads(0), kInvalidArgument);
}

TEST(UniformFramesTest, IsLinspaceCutToWholeNumbers) {
  EXPECT_EQ(UniformFrames(11, 3), (std::vector<int64_t>{0, 5, 10}));
  EXPECT_EQ(UniformFrames(3, 4), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(UniformFrames(10, 4), (std::vector<int64_t>{0, 3, 6, 9}));
  EXPECT_EQ(UniformFrames(8, 5), (std::vector<int64_t>{0, 1, 3, 5, 7}));
  EXPECT_EQ(UniformFrames(100, 1), (std::vector<int64_t>{0}));
  EXPECT_ERROR(UniformFrames(0, 3), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::io
