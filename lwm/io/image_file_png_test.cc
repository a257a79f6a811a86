// PNGs of rare kinds, each written out by hand.
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/io/image_file.h"

namespace lwm::io {
namespace {

constexpr std::string_view kSignature = "89504e470d0a1a0a";
constexpr std::string_view kEnd = "0000000049454e44ae426082";

std::vector<std::byte> Bytes(std::string_view hex) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return bytes;
}

// The values of all pixels; `chunks` in hex, from the header to the data.
std::vector<int> Pixels(const std::string& chunks) {
  const auto bytes = Bytes(Cat(kSignature, chunks, kEnd));
  const RgbImage image = DecodeImage(bytes, "x.png");
  EXPECT_EQ(image.rgb_HWC.size(), static_cast<size_t>(image.width * image.height * 3));
  return {image.rgb_HWC.begin(), image.rgb_HWC.end()};
}

TEST(DecodePngTest, OneBitGreyBecomesBlackAndWhite) {
  EXPECT_EQ(Pixels("0000000d4948445200000002000000010100000000dc594227"
                   "0000000a4944415478da637000000042004184bf8e62"),
            (std::vector{0, 0, 0, 255, 255, 255}));
}

TEST(DecodePngTest, PalettesAreLookedUp) {
  EXPECT_EQ(Pixels("0000000d4948445200000002000000010403000000060c62b9"
                   "00000006504c5445ff00000a141e98957de3"
                   "0000000a4944415478da631000000012001108debdc3"),
            (std::vector{10, 20, 30, 255, 0, 0}));
}

TEST(DecodePngTest, ClearEntriesOfAPaletteAreWhite) {
  EXPECT_EQ(Pixels("0000000d4948445200000002000000010803000000c3fc8fb8"
                   "00000006504c5445ff00000a141e98957de3"
                   "0000000274524e5300ff5b9122b5"
                   "0000000b4944415478da63606400000005000242c2449f"),
            (std::vector{10, 20, 30, 255, 255, 255}));
}

// Opacity 0.2: black on white is 204, (200, 100, 0) is (244, 224, 204).
TEST(DecodePngTest, AlphaOfGreyAndDeepImagesIsLaidOnWhite) {
  EXPECT_EQ(Pixels("0000000d4948445200000001000000011004000000e58cd041"
                   "0000000d4944415478da63606030360600009e0067ec45087a"),
            (std::vector{204, 204, 204}));
  EXPECT_EQ(Pixels("0000000d4948445200000001000000010804000000b51c0c02"
                   "0000000b4944415478da634831060000fe009866aefe1a"),
            (std::vector{224, 224, 224}));
  EXPECT_EQ(Pixels("0000000d49484452000000010000000110060000004f8518ca"
                   "000000114944415478da63387122258581c1d8180010a602bf68cb908f"),
            (std::vector{244, 224, 204}));
}

TEST(DecodePngTest, ImpossibleSizesAndChecksumsAreRefused) {
  const std::string data = "000000094944415478da63000000010001b10db693";
  for (const std::string& chunks :
       {"0000000d494844520000ea600000ea6008020000000fb0e215" + data,  // 60000 x 60000
        "0000000d49484452000000000000000108020000007fb538e0" + data,  // 0 x 1
        std::string("0000000d4948445200000001000000010802000000907753de"
                    "0000000c4944415478da636064620600000e000700000000")}) {
    try {
      Pixels(chunks);
      ADD_FAILURE() << "accepted " << chunks;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
      EXPECT_NE(std::string(error.what()).find("x.png"), std::string::npos);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace lwm::io
