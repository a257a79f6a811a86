#include <tiffio.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>

#include "lwm/base/error.h"
#include "lwm/io/exif.h"
#include "lwm/io/image_formats.h"

namespace lwm::io {
namespace {

// Bytes in memory as a file for libtiff.
struct TiffBytes {
  std::span<const std::byte> bytes;
  toff_t position = 0;
};

tmsize_t ReadTiff(thandle_t handle, void* to, tmsize_t wanted) {
  auto& file = *static_cast<TiffBytes*>(handle);
  if (file.position >= file.bytes.size()) return 0;
  const auto count = std::min<size_t>(static_cast<size_t>(wanted),
                                      file.bytes.size() - static_cast<size_t>(file.position));
  std::memcpy(to, file.bytes.data() + file.position, count);
  file.position += count;
  return static_cast<tmsize_t>(count);
}

tmsize_t RefuseWrite(thandle_t, void*, tmsize_t) { return -1; }

toff_t SeekTiff(thandle_t handle, toff_t offset, int whence) {
  auto& file = *static_cast<TiffBytes*>(handle);
  if (whence == SEEK_CUR) offset += file.position;
  if (whence == SEEK_END) offset += file.bytes.size();
  return file.position = offset;
}

toff_t SizeOfTiff(thandle_t handle) { return static_cast<TiffBytes*>(handle)->bytes.size(); }
int CloseTiff(thandle_t) { return 0; }

struct TiffDelete {
  void operator()(TIFF* tiff) const { TIFFClose(tiff); }
};

void Silence() {
  static const bool done = [] {
    TIFFSetErrorHandler(nullptr);
    TIFFSetWarningHandler(nullptr);
    return true;
  }();
  (void)done;
}

template <class T>
T Field(TIFF* tiff, uint32_t tag, T otherwise) {
  T value = otherwise;
  return TIFFGetFieldDefaulted(tiff, tag, &value) == 1 ? value : otherwise;
}

Orientation OrientationOf(TIFF* tiff) {
  const auto number = Field<uint16_t>(tiff, TIFFTAG_ORIENTATION, 1);
  return number >= 1 && number <= 8 ? static_cast<Orientation>(number) : Orientation::kUpright;
}

bool IsFloat(TIFF* tiff) {
  return Field<uint16_t>(tiff, TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_UINT) == SAMPLEFORMAT_IEEEFP &&
         Field<uint16_t>(tiff, TIFFTAG_BITSPERSAMPLE, 1) == 32;
}

// Grey or RGB of floating point, 0 to 1, in rows; false when it cannot be read.
bool ReadFloats(TIFF* tiff, RgbImage& image) {
  const auto samples = Field<uint16_t>(tiff, TIFFTAG_SAMPLESPERPIXEL, 1);
  const auto planes = Field<uint16_t>(tiff, TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
  const auto row_bytes = static_cast<int64_t>(sizeof(float)) * samples * image.width;
  if ((samples != 1 && samples != 3) || planes != PLANARCONFIG_CONTIG || TIFFIsTiled(tiff) ||
      TIFFScanlineSize64(tiff) != static_cast<uint64_t>(row_bytes))
    return false;
  std::vector<float> row(static_cast<size_t>(samples * image.width));
  for (int64_t y = 0; y < image.height; ++y) {
    if (TIFFReadScanline(tiff, row.data(), static_cast<uint32_t>(y)) != 1) return false;
    for (size_t x = 0; x < static_cast<size_t>(image.width); ++x)
      for (size_t c = 0; c < 3; ++c) {
        const float value = row[samples == 1 ? x : 3 * x + c];
        const float level = std::isnan(value) ? 0 : std::clamp(value, 0.0F, 1.0F);
        image.rgb_HWC[static_cast<size_t>(3 * y * image.width) + 3 * x + c] =
            static_cast<uint8_t>(std::lround(255 * level));
      }
  }
  return true;
}

// All other kinds as RGBA of 8 bits, multiplied by alpha; in the order in which they are stored.
// libtiff's pixels are numbers with red in the lowest byte: on a little-endian machine, bytes RGBA.
bool ReadRgba(TIFF* tiff, std::vector<uint8_t>& rgba, std::array<char, 1024>& message) {
  static_assert(std::endian::native == std::endian::little);
  constexpr int kStopOnError = 1;
  TIFFRGBAImage reader;
  if (TIFFRGBAImageBegin(&reader, tiff, kStopOnError, message.data()) != 1) return false;
  // Rows as stored: TurnUpright turns images of all formats.
  reader.req_orientation = reader.orientation;
  const bool well = TIFFRGBAImageGet(&reader, reinterpret_cast<uint32_t*>(rgba.data()),
                                     reader.width, reader.height) == 1;
  TIFFRGBAImageEnd(&reader);
  return well;
}

}  // namespace

RgbImage DecodeTiff(std::span<const std::byte> bytes, const std::string& where) {
  Silence();
  TiffBytes file{bytes};
  // m: no memory map, only the functions above.
  const std::unique_ptr<TIFF, TiffDelete> tiff(TIFFClientOpen(where.c_str(), "rm", &file, ReadTiff,
                                                              RefuseWrite, SeekTiff, CloseTiff,
                                                              SizeOfTiff, nullptr, nullptr));
  std::array<char, 1024> message = {};
  const auto require = [&](bool well) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, well, where,
                   ": the TIFF cannot be decoded; it is damaged, truncated or of a rare kind",
                   message[0] != 0 ? ": " : "", message.data());
  };
  require(tiff != nullptr);
  const auto width = Field<uint32_t>(tiff.get(), TIFFTAG_IMAGEWIDTH, 0);
  const auto height = Field<uint32_t>(tiff.get(), TIFFTAG_IMAGELENGTH, 0);
  RequireImageSize(width, height, where);
  const Orientation orientation = OrientationOf(tiff.get());
  if (IsFloat(tiff.get())) {
    RgbImage image{width, height, std::vector<uint8_t>(size_t{3} * width * height)};
    require(ReadFloats(tiff.get(), image));
    return TurnUpright(std::move(image), orientation);
  }
  std::vector<uint8_t> rgba(size_t{4} * width * height);
  require(ReadRgba(tiff.get(), rgba, message));
  return TurnUpright(LaidOnWhite(rgba, width, height, true), orientation);
}

}  // namespace lwm::io
