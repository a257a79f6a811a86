#include "lwm/io/exif.h"

#include <bit>
#include <cstdint>

#include "lwm/base/error.h"
#include "lwm/io/byte_reader.h"

namespace lwm::io {
namespace {

std::optional<Orientation> Checked(uint32_t number) {
  if (number < 1 || number > 8) return {};
  return static_cast<Orientation>(number);
}

template <class T>
T Read(ByteReader& in, bool is_big_endian) {
  return is_big_endian ? in.BigEndian<T>() : in.Number<T>();
}

std::optional<Orientation> ReadDirectory(std::span<const std::byte> tiff) {
  constexpr uint16_t kOrientation = 0x0112, kShort = 3, kLong = 4;
  ByteReader in(tiff, "EXIF");
  const std::string_view order = in.Text(2);
  if (order != "II" && order != "MM") return {};
  const bool big = order == "MM";
  if (Read<uint16_t>(in, big) != 42) return {};
  const auto directory = Read<uint32_t>(in, big);
  in.Require(directory >= 8 && directory - 8 <= in.remaining(), "directory outside");
  in.Bytes(directory - 8);
  for (auto entries = Read<uint16_t>(in, big); entries > 0; --entries) {
    const auto tag = Read<uint16_t>(in, big);
    const auto type = Read<uint16_t>(in, big);
    in.Bytes(4);  // the number of values
    ByteReader value(in.Bytes(4), "EXIF");
    if (tag != kOrientation) continue;
    if (type == kShort) return Checked(Read<uint16_t>(value, big));
    if (type == kLong) return Checked(Read<uint32_t>(value, big));
    return {};
  }
  return {};
}

}  // namespace

std::optional<Orientation> ExifOrientation(std::span<const std::byte> exif) {
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  const std::string_view text(reinterpret_cast<const char*>(exif.data()), exif.size());
  if (text.starts_with(kPrefix)) exif = exif.subspan(kPrefix.size());
  // An image with damaged EXIF is still an image: it is shown as stored.
  try {
    return ReadDirectory(exif);
  } catch (const Error&) {  // damaged
    return {};
  }
}

std::optional<Orientation> XmpOrientation(std::string_view xmp) {
  constexpr std::string_view kName = "tiff:Orientation";
  const size_t at = xmp.find(kName);
  if (at == std::string_view::npos) return {};
  const std::string_view after = xmp.substr(at + kName.size());  // ="6" or >6
  const size_t skip = after.starts_with("=\"") || after.starts_with("='") ? 2
                      : after.starts_with(">")                            ? 1
                                                                          : after.size();
  if (skip >= after.size() || after[skip] < '1' || after[skip] > '8') return {};
  return Checked(static_cast<uint32_t>(after[skip] - '0'));
}

}  // namespace lwm::io
