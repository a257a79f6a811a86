#include "lwm/io/image_file.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace lwm::io
