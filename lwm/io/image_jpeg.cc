#include <csetjmp>
#include <cstdio>
// It needs <cstdio> before it.
#include <jpeglib.h>
// Of jpeglib's messages.
#include <jerror.h>

#include <algorithm>
#include <array>

#include "lwm/base/error.h"
#include "lwm/io/exif.h"
#include "lwm/io/image_formats.h"

namespace lwm::io {
namespace {

// libjpeg reports errors by a call that must not return, and damage by warnings.
struct JpegErrors {
  jpeg_error_mgr manager = {};  // the first: libjpeg knows this part
  std::jmp_buf give_up = {};
  std::array<char, JMSG_LENGTH_MAX> message = {};
  bool lacks_data = false;  // a scan ended before its image did
  bool lacks_end = false;   // the file ended without an end marker
};

void GiveUp(j_common_ptr common) {
  auto& errors = *reinterpret_cast<JpegErrors*>(common->err);
  common->err->format_message(common, errors.message.data());
  std::longjmp(errors.give_up, 1);
}

void NoteWarning(j_common_ptr common, int level) {
  if (level >= 0) return;  // a trace
  auto& errors = *reinterpret_cast<JpegErrors*>(common->err);
  errors.lacks_data |= common->err->msg_code == JWRN_HIT_MARKER;
  errors.lacks_end |= common->err->msg_code == JWRN_JPEG_EOF;
}

void PrintNothing(j_common_ptr) {}

struct JpegDecoder {
  JpegDecoder(std::span<const std::byte> file, std::string name)
      : bytes(file), where(std::move(name)) {
    jpeg.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = GiveUp;
    errors.manager.emit_message = NoteWarning;
    errors.manager.output_message = PrintNothing;
  }
  ~JpegDecoder() { jpeg_destroy_decompress(&jpeg); }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  // Both hold no object with a destructor while libjpeg may jump out of them; false after that.
  bool ReadHeader();
  bool ReadPixels();

  // Rescued files end in zeros instead of an end marker. Those that the decoder took for data stand
  // for a part of the image that is lost.
  bool DecodedZeroTail() const;
  bool IsIncomplete();

  std::span<const std::byte> bytes;
  std::string where;
  JpegErrors errors;
  jpeg_decompress_struct jpeg = {};
  std::vector<uint8_t> pixels;  // three or, of CMYK, four values each
  size_t read = 0;              // bytes, when the last row was decoded
};

bool JpegDecoder::ReadHeader() {
  if (setjmp(errors.give_up)) return false;
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xffff);  // EXIF and XMP
  jpeg_read_header(&jpeg, TRUE);
  const bool is_cmyk = jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK;
  jpeg.out_color_space = is_cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_calc_output_dimensions(&jpeg);
  return true;
}

bool JpegDecoder::ReadPixels() {
  if (setjmp(errors.give_up)) return false;
  jpeg_start_decompress(&jpeg);
  const size_t stride = size_t{jpeg.output_width} * static_cast<size_t>(jpeg.output_components);
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = pixels.data() + stride * jpeg.output_scanline;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  // How far the decoder has read when the image is complete, for DecodedZeroTail.
  read = bytes.size() - jpeg.src->bytes_in_buffer;
  return true;
}

bool JpegDecoder::DecodedZeroTail() const {
  constexpr size_t kReadAhead = 16;
  const auto tail = std::find_if(bytes.rbegin(), bytes.rend(),
                                 [](std::byte byte) { return byte != std::byte{0}; });
  const auto data = static_cast<size_t>(bytes.rend() - tail);
  return data + kReadAhead < bytes.size() && read > data + kReadAhead;
}

// A file with several scans is read to its end before the first row. Without an end marker it is
// whole only if every coefficient was given to its last bit.
bool JpegDecoder::IsIncomplete() {
  if (errors.lacks_data) return true;
  if (!jpeg_has_multiple_scans(&jpeg)) return DecodedZeroTail();
  if (!errors.lacks_end) return false;
  if (!jpeg.coef_bits) return true;
  for (int component = 0; component < jpeg.num_components; ++component)
    for (int k = 0; k < DCTSIZE2; ++k)
      if (jpeg.coef_bits[component][k] != 0) return true;
  return false;
}

// The colours of CMYK are stored inverted, as Adobe's programs do.
std::vector<uint8_t> RgbOfCmyk(const std::vector<uint8_t>& cmyk) {
  std::vector<uint8_t> rgb;
  rgb.reserve(cmyk.size() / 4 * 3);
  for (size_t i = 0; i + 3 < cmyk.size(); i += 4)
    for (size_t c = 0; c < 3; ++c)
      rgb.push_back(static_cast<uint8_t>((cmyk[i + c] * cmyk[i + 3] + 127) / 255));
  return rgb;
}

Orientation OrientationOf(const jpeg_decompress_struct& jpeg) {
  std::optional<Orientation> of_xmp;
  for (const jpeg_marker_struct* marker = jpeg.marker_list; marker; marker = marker->next) {
    const std::string_view text(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (text.starts_with("Exif")) {
      const auto turn = ExifOrientation(std::as_bytes(std::span(text)));
      if (turn) return *turn;
    }
    if (!of_xmp && text.starts_with("http://ns.adobe.com/xap/")) of_xmp = XmpOrientation(text);
  }
  return of_xmp.value_or(Orientation::kUpright);
}

}  // namespace

RgbImage DecodeJpeg(std::span<const std::byte> bytes, const std::string& where) {
  JpegDecoder decoder(bytes, where);
  const auto require = [&](bool well) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, well, where,
                   ": the JPEG cannot be decoded; it is damaged or truncated: ",
                   decoder.errors.message.data());
  };
  require(decoder.ReadHeader());
  const int64_t width = decoder.jpeg.output_width, height = decoder.jpeg.output_height;
  RequireImageSize(width, height, where);
  const bool is_cmyk = decoder.jpeg.out_color_space == JCS_CMYK;
  decoder.pixels.resize(static_cast<size_t>(width * height * (is_cmyk ? 4 : 3)));
  require(decoder.ReadPixels());
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, !decoder.IsIncomplete(), where,
                 ": the JPEG is truncated or damaged: a part of the image is missing");
  const Orientation orientation = OrientationOf(decoder.jpeg);
  return TurnUpright(
      {width, height, is_cmyk ? RgbOfCmyk(decoder.pixels) : std::move(decoder.pixels)},
      orientation);
}

}  // namespace lwm::io
