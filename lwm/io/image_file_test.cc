#include "lwm/io/image_file.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/gif_writer.h"
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

std::string Golden(const std::string& name) { return ReadFile(GoldenFolder("media") / name); }

RgbImage Decoded(const std::string& bytes) {
  return DecodeImage(std::as_bytes(std::span(bytes)), "image");
}

std::string Refusal(const std::string& bytes) {
  return MessageOf([&] { Decoded(bytes); }, ErrorCode::kCorruptData);
}

// The colour of the pixel at these shares of the width and height.
std::vector<int> At(const RgbImage& image, double x, double y) {
  const auto column = static_cast<int64_t>(x * static_cast<double>(image.width));
  const auto row = static_cast<int64_t>(y * static_cast<double>(image.height));
  const auto at = static_cast<size_t>(3 * (row * image.width + column));
  return {image.rgb_HWC.at(at), image.rgb_HWC.at(at + 1), image.rgb_HWC.at(at + 2)};
}

void ExpectColour(const RgbImage& image, double x, double y, const std::vector<int>& want,
                  int tolerance, const std::string& what) {
  const std::vector<int> got = At(image, x, y);
  for (size_t c = 0; c < 3; ++c)
    EXPECT_NEAR(got[c], want[c], tolerance) << what << " at " << x << ", " << y;
}

// 48 x 32 with a quarter each of red, green, blue and yellow.
void ExpectQuarters(const RgbImage& image, int tolerance, const std::string& what) {
  ASSERT_EQ(image.width, 48) << what;
  ASSERT_EQ(image.height, 32) << what;
  ExpectColour(image, 0.25, 0.25, {220, 30, 30}, tolerance, what);
  ExpectColour(image, 0.75, 0.25, {30, 180, 30}, tolerance, what);
  ExpectColour(image, 0.25, 0.75, {30, 30, 220}, tolerance, what);
  ExpectColour(image, 0.75, 0.75, {230, 220, 40}, tolerance, what);
}

TEST(DecodeImageTest, EveryFormatGivesTheSameImage) {
  for (const char* name :
       {"plain.bmp", "plain.ppm", "plain.jp2", "plain.gif", "plain.webp", "plain.jpg",
        "progressive.jpg", "cmyk.jpg", "animated.webp", "animated.gif", "animated.png"})
    ExpectQuarters(Decoded(Golden(name)), 2, name);
}

TEST(DecodeImageTest, ExifAndXmpTurnEveryFormatUpright) {
  for (const char* name :
       {"turned.jpg", "turned.png", "turned.webp", "turned.tiff", "turned_by_xmp.png"})
    ExpectQuarters(Decoded(Golden(name)), 2, name);
}

TEST(DecodeImageTest, EveryOrientationOfExifIsFollowed) {
  std::string jpeg = Golden("turned.jpg");  // turned left: red, green, ... at other places
  const size_t tag = jpeg.find(std::string("\x01\x12\0\x03", 4));
  ASSERT_NE(tag, std::string::npos);
  const std::vector<int> red = {220, 30, 30};
  struct Case {
    char orientation;
    double x, y;  // of the red quarter
  };
  for (const Case& one :
       {Case{1, 0.25, 0.75}, Case{2, 0.75, 0.75}, Case{3, 0.75, 0.25}, Case{4, 0.25, 0.25},
        Case{5, 0.75, 0.25}, Case{6, 0.25, 0.25}, Case{7, 0.25, 0.75}, Case{8, 0.75, 0.75}}) {
    jpeg.at(tag + 9) = one.orientation;
    const RgbImage image = Decoded(jpeg);
    EXPECT_EQ(image.width, one.orientation < 5 ? 32 : 48) << int{one.orientation};
    ExpectColour(image, one.x, one.y, red, 2, std::to_string(one.orientation));
  }
}

TEST(DecodeImageTest, TransparencyIsLaidOnWhite) {
  for (const char* name : {"clear_grey.png", "clear_grey16.png", "clear_rgb.png",
                           "clear_palette.png", "clear.webp", "clear.tiff", "clear_grey2.png"}) {
    const RgbImage image = Decoded(Golden(name));
    const int grey = std::string(name) == "clear_grey2.png" ? 170 : 192;
    ExpectColour(image, 0.25, 0.5, {255, 255, 255}, 0, name);
    ExpectColour(image, 0.75, 0.5, {grey, grey, grey}, 0, name);
  }
}

TEST(DecodeImageTest, FloatingPixelsFromZeroToOneBecomeBytes) {
  const RgbImage image = Decoded(Golden("float.tiff"));
  ExpectColour(image, 0.25, 0.25, {87, 87, 87}, 1, "float.tiff");
  ExpectColour(image, 0.75, 0.75, {202, 202, 202}, 1, "float.tiff");
}

// 8 x 8 pixels of one CMYK colour, stored inverted as Adobe does: cyan, yellow and black 228,
// magenta 28. Each component is one block: DC difference +-100 in 7 bits, then end of block.
std::string CmykJpeg() {
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
  return {bytes.begin(), bytes.end()};
}

TEST(DecodeImageTest, CmykJpegBecomesRgb) {
  // 228 * 228 / 255 and 28 * 228 / 255
  ExpectColour(Decoded(CmykJpeg()), 0, 0, {204, 25, 204}, 2, "CMYK");
}

TEST(DecodeImageTest, ClearPixelsOfAGifAreWhite) {
  const TemporaryFolder folder;
  GifWriter writer(folder / "x.gif", 10);
  RgbImage frame = PlainImage(8, 8, 200, 0, 0);
  frame.rgb_HWC[0] = 7;  // another colour, palette entry 0
  writer.Add(frame);
  writer.Finish();
  std::string gif = ReadFile(folder / "x.gif");
  const size_t control = gif.find("\x21\xf9\x04");
  gif.at(control + 3) |= 1;  // entry 0 is clear
  const RgbImage image = Decoded(gif);
  ExpectColour(image, 0, 0, {255, 255, 255}, 0, "clear");
  EXPECT_NEAR(image.rgb_HWC[3], 200, 8);
}

TEST(BrokenImageTest, TruncatedImagesOfEveryFormatAreRefused) {
  for (const char* name :
       {"noise.jpg", "noise_progressive.jpg", "noise.png", "plain.webp", "plain.gif", "plain.bmp",
        "plain.ppm", "turned.tiff", "animated.gif", "animated.webp"}) {
    const std::string whole = Golden(name);
    EXPECT_GE(Decoded(whole).width, 32) << name;
    for (const double part : {0.02, 0.3, 0.5, 0.8}) {
      SCOPED_TRACE(std::string(name) + " " + std::to_string(part));
      Refusal(whole.substr(0, static_cast<size_t>(part * static_cast<double>(whole.size()))));
    }
  }
}

TEST(BrokenImageTest, JpegWithZerosForItsEndMarkerIsRead) {
  for (const char* name : {"noise.jpg", "noise_progressive.jpg", "plain.jpg"}) {
    const std::string whole = Golden(name);
    const std::string data = whole.substr(0, whole.size() - 2);
    EXPECT_EQ(Decoded(data + std::string(512, '\0')).rgb_HWC, Decoded(whole).rgb_HWC) << name;
    EXPECT_EQ(Decoded(data).rgb_HWC, Decoded(whole).rgb_HWC) << name;
  }
}

TEST(BrokenImageTest, JpegWithZerosForAHalfIsRefused) {
  for (const char* name : {"noise.jpg", "noise_progressive.jpg"}) {
    std::string jpeg = Golden(name);
    const size_t half = jpeg.size() / 2;
    EXPECT_NE(Refusal(jpeg.substr(0, half) + std::string(half, '\0')).find("truncated"),
              std::string::npos)
        << name;
  }
}

TEST(BrokenImageTest, JpegWithAThumbnailIsWholeOnlyToItsOwnEnd) {
  std::string jpeg = Golden("noise.jpg");
  const std::string thumbnail = Golden("plain.jpg");
  const size_t length = thumbnail.size() + 2;
  std::string segment = "\xff\xe1";
  segment += static_cast<char>(length >> 8);
  segment += static_cast<char>(length & 255);
  jpeg.insert(2, segment + thumbnail);
  EXPECT_EQ(Decoded(jpeg).width, 64);
  EXPECT_EQ(Decoded(jpeg + std::string(100, '\xda')).width, 64);  // bytes after the end do no harm
  EXPECT_NE(Refusal(jpeg.substr(0, jpeg.size() * 3 / 4)).find("truncated"), std::string::npos);
}

TEST(BrokenImageTest, CommentAfterTheScanOfAJpegDoesNotTruncateIt) {
  std::string jpeg = Golden("plain.jpg");
  jpeg.insert(jpeg.size() - 2, std::string("\xff\xfe\0\x04hi", 6));
  EXPECT_EQ(Decoded(jpeg).width, 48);
}

TEST(BrokenImageTest, HugeSizesAreRefusedByTheLimit) {
  const std::string side = "\x4e\x20";  // 20,000, big-endian
  std::string jpeg = Golden("plain.jpg"), tiff = Golden("turned.tiff"), bmp = Golden("plain.bmp");
  const size_t frame = jpeg.find("\xff\xc0");
  jpeg.replace(frame + 5, 4, side + side);
  EXPECT_NE(Refusal(jpeg).find("20000 x 20000 pixels; the limit is 268435456"), std::string::npos);
  for (const char tag : {'\0', '\1'}) {  // width and height are little-endian numbers
    const size_t at = tiff.find(std::string(1, tag) + "\x01");
    ASSERT_NE(at, std::string::npos);
    tiff.replace(at + 8, 4, std::string("\x20\x4e\0\0", 4));
  }
  EXPECT_NE(Refusal(tiff).find("limit"), std::string::npos);
  bmp.replace(18, 8, std::string("\x20\x4e\0\0\x20\x4e\0\0", 8));
  EXPECT_NE(Refusal(bmp).find("limit"), std::string::npos);
}

TEST(BrokenImageTest, OtherAndEmptyBytesAreRefused) {
  EXPECT_NE(Refusal("").find("0 bytes"), std::string::npos);
  Refusal("hello");
  EXPECT_NE(MessageOf([] { ReadImage("/nowhere/x.png"); }, ErrorCode::kNotFound).find("/nowhere"),
            std::string::npos);
}

TEST(WritePngTest, ReadsBackEqual) {
  const TemporaryFolder folder;
  RgbImage image = PlainImage(3, 2, 1, 2, 3);
  image.rgb_HWC.back() = 250;
  WritePng(folder / "x.png", image);
  const RgbImage again = ReadImage(folder / "x.png");
  EXPECT_EQ(again.width, 3);
  EXPECT_EQ(again.height, 2);
  EXPECT_EQ(again.rgb_HWC, image.rgb_HWC);
  EXPECT_ERROR(WritePng(folder / "y.png", {}), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::io
