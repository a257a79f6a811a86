#include <png.h>

#include <csetjmp>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include "lwm/base/error.h"
#include "lwm/io/exif.h"
#include "lwm/io/image_formats.h"

namespace lwm::io {
namespace {

// libpng reports errors by a call that must not return.
struct PngErrors {
  std::jmp_buf give_up = {};
  std::string message;
};

void GiveUp(png_structp png, png_const_charp message) {
  auto& errors = *static_cast<PngErrors*>(png_get_error_ptr(png));
  errors.message = message;
  std::longjmp(errors.give_up, 1);
}

void IgnoreWarning(png_structp, png_const_charp) {}

struct PngDecoder {
  explicit PngDecoder(std::span<const std::byte> file) : bytes(file) {}
  ~PngDecoder() { png_destroy_read_struct(&png, &info, nullptr); }
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;

  // Both hold no object with a destructor while libpng may jump out of them; false after that.
  bool ReadHeader();
  bool ReadPixels();

  static void Give(png_structp png, png_bytep to, size_t count) {
    auto& decoder = *static_cast<PngDecoder*>(png_get_io_ptr(png));
    if (count > decoder.bytes.size() - decoder.position) png_error(png, "the file ends too early");
    std::memcpy(to, decoder.bytes.data() + decoder.position, count);
    decoder.position += count;
  }

  std::span<const std::byte> bytes;
  size_t position = 0;
  PngErrors errors;
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::vector<uint8_t> rgba;
  std::vector<uint8_t*> rows;
};

bool PngDecoder::ReadHeader() {
  if (setjmp(errors.give_up)) return false;
  png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &errors, GiveUp, IgnoreWarning);
  if (png) info = png_create_info_struct(png);
  if (!info) return false;
  png_set_read_fn(png, this, Give);
  png_set_user_limits(png, 0x7fffffff, 0x7fffffff);  // RequireImageSize decides
  png_read_info(png, info);
  return true;
}

// Every kind of pixel as RGBA of 8 bits: 65535 of 16 bits becomes 255, a palette and the one clear
// colour of an image without alpha become alpha.
bool PngDecoder::ReadPixels() {
  if (setjmp(errors.give_up)) return false;
  png_set_expand(png);
  png_set_scale_16(png);
  png_set_gray_to_rgb(png);
  png_set_add_alpha(png, 0xff, PNG_FILLER_AFTER);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  png_read_image(png, rows.data());
  png_read_end(png, info);
  return true;
}

std::string BytesOfHex(std::string_view hex) {
  std::string bytes;
  int digits = 0, value = 0;
  for (const char c : hex) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) continue;
    value = value * 16 + digit;
    if (++digits % 2 == 0) bytes.push_back(static_cast<char>(value)), value = 0;
  }
  return bytes;
}

// "\nexif\n  length\nhexadecimal digits", as ImageMagick wrote it before PNG had a chunk for EXIF.
std::optional<Orientation> OrientationOfRawProfile(std::string_view profile) {
  for (int line = 0; line < 3; ++line) {
    const size_t end = profile.find('\n');
    if (end == std::string_view::npos) return {};
    profile.remove_prefix(end + 1);
  }
  const std::string exif = BytesOfHex(profile);
  return ExifOrientation(std::as_bytes(std::span(exif)));
}

Orientation OrientationOf(png_structp png, png_infop info) {
  png_uint_32 size = 0;
  png_bytep exif = nullptr;
  if (png_get_eXIf_1(png, info, &size, &exif) != 0)
    if (const auto turn = ExifOrientation(std::as_bytes(std::span(exif, size)))) return *turn;
  png_textp texts = nullptr;
  int count = 0;
  png_get_text(png, info, &texts, &count);
  std::optional<Orientation> of_xmp;
  for (int i = 0; i < count; ++i) {
    const std::string_view key = texts[i].key, text = texts[i].text ? texts[i].text : "";
    if (key == "Raw profile type exif" || key == "Raw profile type APP1")
      if (const auto turn = OrientationOfRawProfile(text)) return *turn;
    if (key == "XML:com.adobe.xmp") of_xmp = XmpOrientation(text);
  }
  return of_xmp.value_or(Orientation::kUpright);
}

struct PngWriter {
  ~PngWriter() { png_destroy_write_struct(&png, &info); }
  bool Write(const RgbImage& image);

  static void Keep(png_structp png, png_bytep data, size_t count) {
    auto& file = static_cast<PngWriter*>(png_get_io_ptr(png))->file;
    file.append(reinterpret_cast<const char*>(data), count);
  }

  PngErrors errors;
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::string file;
};

bool PngWriter::Write(const RgbImage& image) {
  if (setjmp(errors.give_up)) return false;
  png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &errors, GiveUp, IgnoreWarning);
  if (png) info = png_create_info_struct(png);
  if (!info) return false;
  png_set_write_fn(png, this, Keep, nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(image.width),
               static_cast<png_uint_32>(image.height), 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_set_filter(png, 0, PNG_FILTER_SUB);
  png_set_compression_level(png, 1);
  png_write_info(png, info);
  for (int64_t y = 0; y < image.height; ++y)
    png_write_row(png, image.rgb_HWC.data() + 3 * image.width * y);
  png_write_end(png, info);
  return true;
}

}  // namespace

RgbImage DecodePng(std::span<const std::byte> bytes, const std::string& where) {
  PngDecoder decoder(bytes);
  const auto require = [&](bool well) {
    LWM_REQUIRE_AS(
        ErrorCode::kCorruptData, well, where,
        ": the PNG cannot be decoded; it is damaged or truncated: ", decoder.errors.message);
  };
  require(decoder.ReadHeader());
  const int64_t width = png_get_image_width(decoder.png, decoder.info);
  const int64_t height = png_get_image_height(decoder.png, decoder.info);
  RequireImageSize(width, height, where);
  decoder.rgba.resize(static_cast<size_t>(4 * width * height));
  for (int64_t y = 0; y < height; ++y) decoder.rows.push_back(decoder.rgba.data() + 4 * width * y);
  require(decoder.ReadPixels());
  return TurnUpright(LaidOnWhite(decoder.rgba, width, height),
                     OrientationOf(decoder.png, decoder.info));
}

std::string EncodePng(const RgbImage& image) {
  PngWriter writer;
  LWM_CHECK(writer.Write(image), "PNG encoder: ", writer.errors.message);
  return std::move(writer.file);
}

}  // namespace lwm::io
