#include "lwm/io/media_opencv.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/gif_writer.h"
#include "tests/temporary_folder.h"

namespace lwm::io {
namespace {

using testing_support::TemporaryFolder;

std::vector<uint8_t> Encoded(const char* extension, const cv::Mat& picture) {
  std::vector<uint8_t> bytes;
  EXPECT_TRUE(cv::imencode(extension, picture, bytes));
  return bytes;
}

RgbImage Decoded(const std::vector<uint8_t>& bytes) {
  return DecodeImage(std::as_bytes(std::span(bytes)), "picture");
}

// The colour of the first pixel.
std::vector<int> First(const RgbImage& image) {
  return {image.rgb_HWC.at(0), image.rgb_HWC.at(1), image.rgb_HWC.at(2)};
}

// What reading `read` says when it fails.
template <class Read>
std::string MessageOf(const Read& read, ErrorCode code = ErrorCode::kCorruptData) {
  try {
    read();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

RgbImage Plain(int64_t width, int64_t height, uint8_t red, uint8_t green, uint8_t blue) {
  RgbImage image{width, height, {}};
  for (int64_t i = 0; i < width * height; ++i)
    image.rgb_HWC.insert(image.rgb_HWC.end(), {red, green, blue});
  return image;
}

void WriteClip(const std::filesystem::path& path, int64_t frames, int64_t side) {
  Mp4Writer writer(path, 10);
  for (int64_t i = 0; i < frames; ++i)
    writer.Add(Plain(side, side, static_cast<uint8_t>(10 + 20 * i), 60, 90));
  writer.Finish();
}

TEST(DecodeImageTest, ColourGreyDeepAndFloatingPicturesBecomeBytes) {
  EXPECT_EQ(First(Decoded(Encoded(".png", cv::Mat(2, 3, CV_8UC3, cv::Scalar(30, 20, 10))))),
            (std::vector{10, 20, 30}));
  EXPECT_EQ(First(Decoded(Encoded(".png", cv::Mat(2, 3, CV_8UC1, cv::Scalar(77))))),
            (std::vector{77, 77, 77}));
  const cv::Mat deep(2, 3, CV_16UC3, cv::Scalar(0, 128 * 257, 65535));
  EXPECT_EQ(First(Decoded(Encoded(".png", deep))), (std::vector{255, 128, 0}));
  EXPECT_EQ(First(Decoded(Encoded(".png", cv::Mat(2, 3, CV_16UC1, cv::Scalar(65535))))),
            (std::vector{255, 255, 255}));
  EXPECT_EQ(First(Decoded(Encoded(".tiff", cv::Mat(2, 3, CV_32FC3, cv::Scalar(0, 0.2, 1))))),
            (std::vector{255, 51, 0}));
}

TEST(DecodeImageTest, TransparencyIsLaidOnWhite) {
  const cv::Mat half(1, 1, CV_8UC4, cv::Scalar(0, 100, 200, 51));
  EXPECT_EQ(First(Decoded(Encoded(".png", half))), (std::vector{244, 224, 204}));
  const cv::Mat clear(1, 1, CV_8UC4, cv::Scalar(0, 0, 0, 0));
  EXPECT_EQ(First(Decoded(Encoded(".png", clear))), (std::vector{255, 255, 255}));
  const cv::Mat deep(1, 1, CV_16UC4, cv::Scalar(0, 0, 65535, 65535));
  EXPECT_EQ(First(Decoded(Encoded(".png", deep))), (std::vector{255, 0, 0}));
}

TEST(DecodeImageTest, GreyJpegIsGrey) {
  const auto bytes = Encoded(".jpg", cv::Mat(16, 16, CV_8UC1, cv::Scalar(120)));
  const auto colour = First(Decoded(bytes));
  for (const int value : colour) EXPECT_NEAR(value, 120, 2);
}

// 8 x 8 pixels of one CMYK colour, stored inverted as Adobe does: cyan, yellow and black 228,
// magenta 28. Each component is one block: DC difference +-100 in 7 bits, then end of block.
std::vector<uint8_t> CmykJpeg() {
  std::vector<uint8_t> bytes = {0xff, 0xd8, 0xff, 0xee, 0, 14, 'A',  'd',  'o', 'b', 'e', 0,
                                100,  0,    0,    0,    0, 0,  0xff, 0xdb, 0,   67,  0};
  bytes.insert(bytes.end(), 64, 8);  // quantisation: a DC step is one grey level
  const auto append = [&](std::initializer_list<int> more) {
    for (const int byte : more) bytes.push_back(static_cast<uint8_t>(byte));
  };
  append({0xff, 0xc0, 0, 20, 8, 0, 8, 0, 8, 4});
  for (int component = 1; component <= 4; ++component) append({component, 0x11, 0});
  for (const auto& [table, symbol] : {std::pair{0x00, 7}, {0x10, 0}}) {
    append({0xff, 0xc4, 0, 20, table, 1});  // one code, of one bit
    bytes.insert(bytes.end(), 15, 0);
    append({symbol});
  }
  append({0xff, 0xda, 0, 14, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0});
  append({0x64, 0x0d, 0x99, 0x0c, 0x8f, 0xff, 0xd9});
  return bytes;
}

TEST(DecodeImageTest, CmykJpegBecomesRgb) {
  const auto colour = First(Decoded(CmykJpeg()));
  EXPECT_NEAR(colour[0], 204, 2);  // 228 * 228 / 255
  EXPECT_NEAR(colour[1], 25, 2);   // 28 * 228 / 255
  EXPECT_NEAR(colour[2], 204, 2);
}

// Left white, right black, with an EXIF orientation.
std::vector<uint8_t> OrientedJpeg(uint8_t orientation) {
  cv::Mat picture(16, 32, CV_8UC3, cv::Scalar::all(0));
  cv::rectangle(picture, {0, 0, 15, 15}, cv::Scalar::all(255), -1);
  auto bytes = Encoded(".jpg", picture);
  const std::vector<uint8_t> exif = {0xff, 0xe1, 0, 34, 'E', 'x',         'i', 'f', 0, 0,  'M', 'M',
                                     0,    42,   0, 0,  0,   8,           0,   1,   1, 18, 0,   3,
                                     0,    0,    0, 1,  0,   orientation, 0,   0,   0, 0,  0,   0};
  bytes.insert(bytes.begin() + 2, exif.begin(), exif.end());
  return bytes;
}

TEST(DecodeImageTest, JpegsAreTurnedUpright) {
  struct Case {
    uint8_t orientation;
    int64_t width, height, white_x, white_y;
  };
  for (const Case& turned : {Case{1, 32, 16, 4, 8}, Case{3, 32, 16, 27, 8}, Case{6, 16, 32, 8, 4},
                             Case{8, 16, 32, 8, 27}, Case{2, 32, 16, 27, 8}}) {
    const RgbImage image = Decoded(OrientedJpeg(turned.orientation));
    ASSERT_EQ(image.width, turned.width) << int{turned.orientation};
    ASSERT_EQ(image.height, turned.height) << int{turned.orientation};
    const auto at = static_cast<size_t>(3 * (turned.white_y * image.width + turned.white_x));
    EXPECT_GT(image.rgb_HWC[at], 200) << int{turned.orientation};
  }
}

TEST(DecodeImageTest, ClearPixelsOfAGifAreWhite) {
  const TemporaryFolder folder;
  GifWriter writer(folder / "x.gif", 10);
  RgbImage frame = Plain(8, 8, 200, 0, 0);
  frame.rgb_HWC[0] = 7;  // another colour, palette entry 0
  writer.Add(frame);
  writer.Finish();
  std::string gif = ReadFile(folder / "x.gif");
  const size_t control = gif.find("\x21\xf9\x04");
  gif.at(control + 3) |= 1;  // entry 0 is clear
  WriteFileAtomically(folder / "x.gif", gif);
  const RgbImage image = ReadImage(folder / "x.gif");
  EXPECT_EQ(First(image), (std::vector{255, 255, 255}));
  EXPECT_NEAR(image.rgb_HWC[3], 200, 8);
}

TEST(DecodeImageTest, JpegWithAThumbnailIsWholeOnlyToItsOwnEnd) {
  cv::Mat noise(64, 64, CV_8UC3);
  cv::randu(noise, 0, 255);
  auto bytes = Encoded(".jpg", noise);
  const auto thumbnail = Encoded(".jpg", cv::Mat(8, 8, CV_8UC3, cv::Scalar(1, 2, 3)));
  const size_t length = thumbnail.size() + 2;
  std::vector<uint8_t> segment = {0xff, 0xe1, static_cast<uint8_t>(length >> 8),
                                  static_cast<uint8_t>(length & 255)};
  segment.insert(segment.end(), thumbnail.begin(), thumbnail.end());
  bytes.insert(bytes.begin() + 2, segment.begin(), segment.end());
  EXPECT_EQ(Decoded(bytes).width, 64);
  auto longer = bytes;
  longer.insert(longer.end(), 100, 0xda);  // bytes after the end do no harm
  EXPECT_EQ(Decoded(longer).width, 64);
  bytes.resize(bytes.size() * 3 / 4);
  EXPECT_NE(MessageOf([&] { Decoded(bytes); }).find("truncated"), std::string::npos);
}

TEST(DecodeImageTest, CommentAfterTheScanOfAJpegDoesNotTruncateIt) {
  auto bytes = Encoded(".jpg", cv::Mat(8, 8, CV_8UC3, cv::Scalar(90, 90, 90)));
  const std::vector<uint8_t> comment = {0xff, 0xfe, 0, 4, 'h', 'i'};
  bytes.insert(bytes.end() - 2, comment.begin(), comment.end());
  EXPECT_EQ(Decoded(bytes).width, 8);
}

TEST(DecodeImageTest, TruncatedDamagedAndEmptyBytesAreRefused) {
  cv::Mat noise(64, 64, CV_8UC3);
  cv::randu(noise, 0, 255);
  for (const char* extension : {".png", ".jpg", ".webp"}) {
    auto bytes = Encoded(extension, noise);
    EXPECT_EQ(Decoded(bytes).width, 64);
    for (const double part : {0.02, 0.5, 0.9}) {
      std::vector<uint8_t> cut(bytes.begin(),
                               bytes.begin() + static_cast<int64_t>(part * bytes.size()));
      MessageOf([&] { Decoded(cut); });
    }
  }
  EXPECT_NE(MessageOf([] { Decoded({}); }).find("0 bytes"), std::string::npos);
  MessageOf([] { Decoded({'h', 'e', 'l', 'l', 'o'}); });
}

TEST(DecodeImageTest, MissingFileIsNamed) {
  EXPECT_NE(MessageOf([] { ReadImage("/nowhere/x.png"); }, ErrorCode::kNotFound).find("/nowhere"),
            std::string::npos);
}

TEST(WritePngTest, ReadsBackEqual) {
  const TemporaryFolder folder;
  RgbImage image = Plain(3, 2, 1, 2, 3);
  image.rgb_HWC.back() = 250;
  WritePng(folder / "x.png", image);
  const RgbImage again = ReadImage(folder / "x.png");
  EXPECT_EQ(again.width, 3);
  EXPECT_EQ(again.height, 2);
  EXPECT_EQ(again.rgb_HWC, image.rgb_HWC);
}

TEST(VideoTest, WrittenFramesReadBackInOrderAndNumber) {
  const TemporaryFolder folder;
  WriteClip(folder / "x.mp4", 7, 32);
  EXPECT_EQ(CountFrames(folder / "x.mp4"), 7);
  VideoReader reader(folder / "x.mp4");
  EXPECT_NEAR(reader.frames_per_second(), 10, 0.01);
  for (int i = 0; i < 7; ++i) {
    ASSERT_TRUE(reader.Grab());
    const RgbImage frame = reader.Retrieve();
    EXPECT_EQ(frame.width, 32);
    EXPECT_NEAR(frame.rgb_HWC[0], 10 + 20 * i, 6);
    EXPECT_NEAR(frame.rgb_HWC[2], 90, 6);
  }
  EXPECT_FALSE(reader.Grab());
}

TEST(VideoTest, IsH264AndOddSizesAreWidened) {
  const TemporaryFolder folder;
  WriteClip(folder / "x.mp4", 2, 17);
  EXPECT_NE(ReadFile(folder / "x.mp4").find("avc1"), std::string::npos);
  VideoReader reader(folder / "x.mp4");
  ASSERT_TRUE(reader.Grab());
  EXPECT_EQ(reader.Retrieve().width, 18);
}

TEST(VideoTest, UnfinishedOrEmptyClipLeavesNothing) {
  const TemporaryFolder folder;
  {
    Mp4Writer writer(folder / "x.mp4", 10);
    writer.Add(Plain(16, 16, 1, 2, 3));
    EXPECT_THROW(writer.Add(Plain(18, 16, 1, 2, 3)), Error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  Mp4Writer writer(folder / "y.mp4", 10);
  EXPECT_THROW(writer.Finish(), Error);
  EXPECT_THROW(Mp4Writer(folder / "z.mp4", 0), Error);
}

TEST(VideoTest, TwoWritersOfOneClipDoNotDisturbEachOther) {
  const TemporaryFolder folder;
  Mp4Writer first(folder / "x.mp4", 10), last(folder / "x.mp4", 10);
  for (int i = 0; i < 3; ++i) first.Add(Plain(32, 32, 200, 60, 90));
  for (int i = 0; i < 5; ++i) last.Add(Plain(16, 16, 10, 60, 90));
  first.Finish();
  EXPECT_EQ(CountFrames(folder / "x.mp4"), 3);
  last.Finish();
  EXPECT_EQ(CountFrames(folder / "x.mp4"), 5);
}

TEST(VideoTest, ColonInARelativeNameIsNoProtocol) {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  EXPECT_NO_THROW({
    WriteClip("take:2.mp4", 3, 32);
    EXPECT_EQ(CountFrames("take:2.mp4"), 3);
  });
  std::filesystem::current_path(before);
}

// 60 grey frames of 64 x 32 with a white corner at the top left, ten a second.
void WriteCorneredClip(const std::filesystem::path& path) {
  Mp4Writer writer(path, 10);
  for (int i = 0; i < 60; ++i) {
    cv::Mat frame(32, 64, CV_8UC3, cv::Scalar::all(3 * i));
    cv::rectangle(frame, {0, 0, 16, 16}, cv::Scalar::all(255), -1);
    writer.Add({64, 32, {frame.data, frame.data + 64 * 32 * 3}});
  }
  writer.Finish();
}

// In a process of its own: the limit cannot be raised again.
int ExitCodeOfFullDisk(const std::filesystem::path& path) {
  signal(SIGXFSZ, SIG_IGN);
  const rlimit limit = {2000, 2000};
  setrlimit(RLIMIT_FSIZE, &limit);
  try {
    WriteCorneredClip(path);
  } catch (const Error& error) {
    return error.code() == ErrorCode::kResourceExhausted ? 3 : 4;
  }
  return 5;
}

TEST(VideoDeathTest, FullDiskIsToldAndLeavesNothing) {
  const TemporaryFolder folder;
  EXPECT_EXIT(_exit(ExitCodeOfFullDisk(folder / "x.mp4")), testing::ExitedWithCode(3), "");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(VideoTest, DamagedAndMissingFilesAreNamed) {
  const TemporaryFolder folder;
  WriteClip(folder / "x.mp4", 5, 32);
  const std::string whole = ReadFile(folder / "x.mp4");
  for (const size_t bytes : {size_t{0}, size_t{20}, whole.size() / 2}) {
    WriteFileAtomically(folder / "cut.mp4", whole.substr(0, bytes));
    EXPECT_NE(MessageOf([&] { VideoReader reader(folder / "cut.mp4"); }).find("cut.mp4"),
              std::string::npos);
  }
  MessageOf([&] { VideoReader reader(folder / "none.mp4"); }, ErrorCode::kNotFound);
}

uint32_t BigEndianAt(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes.at(at + i));
  return value;
}

// The MP4 with its table of frames (moov) before the frames (mdat), as files for the web have it.
std::string TableFirst(const std::string& mp4) {
  std::string before, table, frames;
  for (size_t at = 0; at < mp4.size(); at += BigEndianAt(mp4, at)) {
    const std::string box = mp4.substr(at, BigEndianAt(mp4, at)), name = box.substr(4, 4);
    (name == "moov" ? table : name == "mdat" ? frames : before) += box;
  }
  const size_t list = table.find("stco");  // offsets of runs of frames in the file
  for (size_t i = 0; i < BigEndianAt(table, list + 8); ++i) {
    const size_t at = list + 12 + 4 * i;
    const uint32_t moved = BigEndianAt(table, at) + static_cast<uint32_t>(table.size());
    for (int byte = 0; byte < 4; ++byte)
      table[at + static_cast<size_t>(byte)] = static_cast<char>(moved >> (24 - 8 * byte));
  }
  return before + table + frames;
}

TEST(VideoTest, ClipThatBreaksOffIsSaidToBeTruncated) {
  const TemporaryFolder folder;
  Mp4Writer writer(folder / "x.mp4", 10);
  for (int i = 0; i < 60; ++i) {
    cv::Mat noise(48, 64, CV_8UC3);
    cv::randu(noise, 0, 255);
    writer.Add({64, 48, {noise.data, noise.data + 64 * 48 * 3}});
  }
  writer.Finish();
  const std::string whole = TableFirst(ReadFile(folder / "x.mp4"));
  WriteFileAtomically(folder / "whole.mp4", whole);
  EXPECT_EQ(CountFrames(folder / "whole.mp4"), 60);
  EXPECT_EQ(VideoReader(folder / "whole.mp4").stated_frames(), 60);
  WriteFileAtomically(folder / "cut.mp4", whole.substr(0, whole.size() / 2));
  const std::string message = MessageOf([&] { CountFrames(folder / "cut.mp4"); });
  EXPECT_NE(message.find("cut.mp4"), std::string::npos) << message;
  EXPECT_NE(message.find("of 60 frames"), std::string::npos) << message;
}

// Puts big-endian numbers at `offset` of the body of the first box of that type.
void Patch(std::string& mp4, const std::string& type, size_t offset,
           const std::vector<int32_t>& values) {
  size_t at = mp4.find(type) + 4 + offset;
  for (const int32_t value : values)
    for (int byte = 3; byte >= 0; --byte)
      mp4.at(at++) = static_cast<char>(static_cast<uint32_t>(value) >> (8 * byte));
}

TEST(VideoTest, PhoneClipsAreTurnedUpright) {
  struct Case {
    std::vector<int32_t> matrix;
    int64_t width, height, corner_x, corner_y;
  };
  constexpr int32_t k1 = 65536;
  const TemporaryFolder folder;
  WriteCorneredClip(folder / "x.mp4");
  const std::string whole = ReadFile(folder / "x.mp4");
  for (const Case& turned :
       {Case{{k1, 0, 0, 0, k1}, 64, 32, 4, 4}, Case{{0, k1, 0, -k1, 0}, 32, 64, 27, 4},
        Case{{-k1, 0, 0, 0, -k1}, 64, 32, 59, 27}, Case{{0, -k1, 0, k1, 0}, 32, 64, 4, 59}}) {
    std::string mp4 = whole;
    Patch(mp4, "tkhd", 40, turned.matrix);
    WriteFileAtomically(folder / "turned.mp4", mp4);
    VideoReader reader(folder / "turned.mp4");
    ASSERT_TRUE(reader.Grab());
    const RgbImage frame = reader.Retrieve();
    ASSERT_EQ(frame.width, turned.width);
    ASSERT_EQ(frame.height, turned.height);
    const auto at = static_cast<size_t>(3 * (turned.corner_y * frame.width + turned.corner_x));
    EXPECT_GT(frame.rgb_HWC[at], 200) << turned.corner_x << " " << turned.corner_y;
  }
}

TEST(VideoTest, TrimmedClipIsNoTruncatedOne) {
  const TemporaryFolder folder;
  WriteCorneredClip(folder / "x.mp4");
  std::string mp4 = ReadFile(folder / "x.mp4");
  const auto ticks = static_cast<int32_t>(BigEndianAt(mp4, mp4.find("mdhd") + 16));
  Patch(mp4, "elst", 8, {1000, 5 * ticks});  // the second from 5 s on, of 60 frames the last ten
  WriteFileAtomically(folder / "trimmed.mp4", mp4);
  EXPECT_EQ(VideoReader(folder / "trimmed.mp4").stated_frames(), 60);
  EXPECT_NEAR(static_cast<double>(CountFrames(folder / "trimmed.mp4")), 10, 2);
}

TEST(VideoTest, TimesAreThoseOfTheFrames) {
  const TemporaryFolder folder;
  WriteClip(folder / "x.mp4", 12, 32);
  VideoReader reader(folder / "x.mp4");
  for (int i = 0; i < 12; ++i) {  // the last ones come without a time from the decoder
    ASSERT_TRUE(reader.Grab());
    EXPECT_NEAR(reader.seconds(), 0.1 * i, 1e-3);
  }
}

TEST(UniformFramesTest, IsLinspaceCutToWholeNumbers) {
  EXPECT_EQ(UniformFrames(11, 3), (std::vector<int64_t>{0, 5, 10}));
  EXPECT_EQ(UniformFrames(3, 4), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(UniformFrames(10, 4), (std::vector<int64_t>{0, 3, 6, 9}));
  EXPECT_EQ(UniformFrames(8, 5), (std::vector<int64_t>{0, 1, 3, 5, 7}));
  EXPECT_EQ(UniformFrames(100, 1), (std::vector<int64_t>{0}));
  EXPECT_THROW(UniformFrames(0, 3), Error);
}

}  // namespace
}  // namespace lwm::io
