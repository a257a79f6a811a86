#include "lwm/io/exif.h"

#include <gtest/gtest.h>

#include <string>

namespace lwm::io {
namespace {

std::optional<Orientation> Of(const std::string& exif) {
  return ExifOrientation(std::as_bytes(std::span(exif)));
}

// One entry: orientation, of that type and value.
std::string LittleEndian(char type, char value) {
  std::string exif("II*\0\x08\0\0\0\x01\0\x12\x01\0\0\x01\0\0\0\0\0\0\0\0\0\0\0", 26);
  exif[12] = type;
  exif[18] = value;
  return exif;
}

TEST(ExifTest, OrientationIsFoundInBothByteOrdersAndAfterThePrefix) {
  EXPECT_EQ(Of(LittleEndian(3, 6)), Orientation::kQuarterRight);
  EXPECT_EQ(Of(LittleEndian(4, 8)), Orientation::kThreeQuartersRight);
  EXPECT_EQ(Of(std::string("Exif\0\0", 6) + LittleEndian(3, 2)), Orientation::kMirrored);
  EXPECT_EQ(Of(std::string("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x05\0\0\0\0\0\0", 26)),
            Orientation::kTransposed);
}

TEST(ExifTest, OtherNumbersTypesAndDamageGiveNothing) {
  for (const std::string& exif : {LittleEndian(3, 0), LittleEndian(3, 9), LittleEndian(2, 6),
                                  std::string("II"), std::string(), std::string(40, 'x')})
    EXPECT_FALSE(Of(exif).has_value());
  const std::string whole = LittleEndian(3, 6);
  for (size_t size = 0; size < 22; ++size) EXPECT_FALSE(Of(whole.substr(0, size)).has_value());
  std::string far = whole;
  far[5] = 0x7f;  // the directory lies outside
  EXPECT_FALSE(Of(far).has_value());
}

TEST(ExifTest, XmpNamesTheOrientationAsAttributeOrElement) {
  EXPECT_EQ(XmpOrientation("<x tiff:Orientation=\"6\">"), Orientation::kQuarterRight);
  EXPECT_EQ(XmpOrientation("<tiff:Orientation>3</tiff:Orientation>"), Orientation::kUpsideDown);
  for (const char* none :
       {"", "<x>", "tiff:Orientation", "tiff:Orientation=\"", "tiff:Orientation=\"9\""})
    EXPECT_FALSE(XmpOrientation(none).has_value()) << none;
}

}  // namespace
}  // namespace lwm::io
