#include "lwm/io/gif_writer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/palette.h"
#include "lwm/io/video_reader.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {
using testing_support::TemporaryFolder;

RgbImage Plain(int64_t width, int64_t height, uint8_t value) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3), value)};
}

// Random pixels of `colours` colours.
RgbImage Noise(int64_t width, int64_t height, uint32_t colours, uint32_t seed) {
  std::mt19937 rng(seed);
  RgbImage image{width, height, {}};
  for (int64_t i = 0; i < width * height; ++i) {
    const auto colour = static_cast<uint32_t>(rng() % colours * 2654435761u);
    for (int shift = 0; shift < 24; shift += 8)
      image.rgb_HWC.push_back(static_cast<uint8_t>(colour >> shift));
  }
  return image;
}

// All colours change smoothly over the image.
RgbImage Gradient(int64_t side) {
  RgbImage image{side, side, {}};
  for (int64_t y = 0; y < side; ++y)
    for (int64_t x = 0; x < side; ++x)
      for (const int64_t value : {x, y, (x + y) / 2})
        image.rgb_HWC.push_back(static_cast<uint8_t>(value * 255 / (side - 1)));
  return image;
}

std::vector<RgbImage> WriteAndRead(const std::filesystem::path& path,
                                   const std::vector<RgbImage>& frames, double rate) {
  GifWriter writer(path, rate);
  for (const RgbImage& frame : frames) writer.Add(frame);
  writer.Finish();
  std::vector<RgbImage> read;
  VideoReader reader(path);
  while (reader.Grab()) read.push_back(reader.Retrieve());
  return read;
}

// Code tables grow to every width and start afresh several times in the frames of noise.
TEST(GifWriterTest, FramesOfFewColoursReadBackEqual) {
  const TemporaryFolder folder;
  for (const uint32_t colours : {1u, 2u, 3u, 5u, 17u, 100u, 256u}) {
    std::vector<RgbImage> frames = {Noise(67, 45, colours, 1), Plain(67, 45, 9),
                                    Noise(67, 45, colours, 2), Noise(67, 45, colours, 3)};
    const auto read = WriteAndRead(folder / "x.gif", frames, 10);
    ASSERT_EQ(read.size(), frames.size()) << colours;
    for (size_t i = 0; i < frames.size(); ++i)
      EXPECT_EQ(read[i].rgb_HWC, frames[i].rgb_HWC) << colours << " colours, frame " << i;
  }
}

TEST(GifWriterTest, EveryLengthOfCodesReadsBackEqual) {
  const TemporaryFolder folder;
  for (int64_t width = 1; width <= 600; width += width < 40 ? 1 : 37) {
    const RgbImage image = Noise(width, 1, 4, static_cast<uint32_t>(width));
    const auto read = WriteAndRead(folder / "x.gif", {image}, 10);
    ASSERT_EQ(read.size(), 1u);
    ASSERT_EQ(read[0].rgb_HWC, image.rgb_HWC) << width;
  }
}

TEST(GifWriterTest, FramesOfManyColoursStayNear) {
  const TemporaryFolder folder;
  const RgbImage image = Gradient(96);
  const auto read = WriteAndRead(folder / "x.gif", {image}, 10);
  ASSERT_EQ(read.size(), 1u);
  double square = 0;
  for (size_t i = 0; i < image.rgb_HWC.size(); ++i) {
    const double apart = static_cast<double>(read[0].rgb_HWC[i]) - image.rgb_HWC[i];
    square += apart * apart;
  }
  EXPECT_LT(square / static_cast<double>(image.rgb_HWC.size()), 25);  // 34 dB
}

// The delays of all frames, hundredths of a second.
std::vector<int> Delays(const std::string& gif) {
  std::vector<int> delays;
  const std::string control("\x21\xf9\x04\x04", 4);
  for (size_t at = gif.find(control); at != std::string::npos; at = gif.find(control, at + 8))
    delays.push_back(static_cast<uint8_t>(gif[at + 4]) + 256 * static_cast<uint8_t>(gif[at + 5]));
  return delays;
}

TEST(GifWriterTest, DelaysAddUpToTheRateAndItRepeatsForEver) {
  const TemporaryFolder folder;
  WriteAndRead(folder / "x.gif", std::vector<RgbImage>(6, Plain(4, 4, 7)), 8);
  const std::string gif = ReadFile(folder / "x.gif");
  EXPECT_EQ(Delays(gif), (std::vector{13, 12, 13, 12, 13, 12}));
  EXPECT_NE(gif.find(std::string("NETSCAPE2.0\x03\x01\0\0\0", 16)), std::string::npos);
}

TEST(GifWriterTest, UnfinishedEmptyAndUnwritableLeaveNothing) {
  const TemporaryFolder folder;
  {
    GifWriter writer(folder / "x.gif", 10);
    writer.Add(Plain(16, 16, 1));
    EXPECT_ERROR(writer.Add(Plain(18, 16, 1)), kInvalidArgument);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_ERROR(GifWriter(folder / "x.gif", 10).Finish(), kInvalidArgument);
  EXPECT_ERROR(GifWriter(folder / "x.gif", 101), kInvalidArgument);
  EXPECT_ERROR(GifWriter(folder / "x.gif", 10).Add({0, 0, {}}), kInvalidArgument);
  EXPECT_ERROR(GifWriter(folder / "none" / "x.gif", 10).Add(Plain(2, 2, 1)), kInvalidArgument);
}

TEST(VideoWriterTest, TheNameChoosesTheFormat) {
  const TemporaryFolder folder;
  for (const char* name : {"x.mp4", "x.gif"}) {
    const auto writer = MakeVideoWriter(folder / name, 10);
    writer->Add(Plain(16, 16, 100));
    writer->Add(Plain(16, 16, 200));
    writer->Finish();
    EXPECT_EQ(CountFrames(folder / name), 2) << name;
  }
  EXPECT_EQ(ReadFile(folder / "x.gif").substr(0, 6), "GIF89a");
  EXPECT_ERROR(MakeVideoWriter(folder / "x.png", 10), kInvalidArgument);
}

TEST(PaletteTest, ManyColoursBecome256AndMeansOfWhatTheyStandFor) {
  const RgbImage image = Gradient(128);
  const IndexedImage indexed = MakeIndexed(image);
  EXPECT_EQ(indexed.palette.size(), 256u);
  const std::set<uint8_t> used(indexed.index_HW.begin(), indexed.index_HW.end());
  EXPECT_GT(used.size(), 240u);
  EXPECT_ERROR(MakeIndexed({0, 0, {}}), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::io
