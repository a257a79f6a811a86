#include "lwm/io/image_file.h"

#include <string_view>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/image_formats.h"
#include "lwm/io/video_reader.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

[[noreturn]] void ThrowBroken(const std::string& where, const std::string& problem) {
  throw Error(ErrorCode::kCorruptData, Cat(where, ": ", problem));
}

// An image of another format, or the first frame of an animation.
RgbImage DecodeWithFfmpeg(std::span<const std::byte> bytes, const std::string& where,
                          bool is_animation) {
  VideoReader reader(bytes, where, "an image");
  if (!reader.Grab()) ThrowBroken(where, "the image is damaged or truncated");
  RgbImage image = reader.Retrieve();
  RequireImageSize(image.width, image.height, where);
  // Whether an image is whole is known at its end; of an animation only the first frame counts.
  if (is_animation && reader.Grab()) return image;
  while (reader.Grab()) {
  }
  if (!reader.warning().empty()) ThrowBroken(where, "the image is damaged or truncated");
  return image;
}

}  // namespace

RgbImage DecodeImage(std::span<const std::byte> bytes, const std::string& where) {
  using namespace std::literals;
  if (bytes.empty()) ThrowBroken(where, "the image is empty (0 bytes)");
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()),
                               std::min<size_t>(bytes.size(), 12));
  if (start.starts_with("\xff\xd8\xff")) return DecodeJpeg(bytes, where);
  if (start.starts_with("\x89PNG")) return DecodePng(bytes, where);
  if (start.starts_with("RIFF") && start.ends_with("WEBP")) return DecodeWebp(bytes, where);
  for (const std::string_view magic : {"II*\0"sv, "MM\0*"sv, "II+\0"sv, "MM\0+"sv})
    if (start.starts_with(magic)) return DecodeTiff(bytes, where);
  return DecodeWithFfmpeg(bytes, where, start.starts_with("GIF8"));
}

RgbImage ReadImage(const fs::path& path) {
  const std::string content = ReadFile(path);
  return DecodeImage(std::as_bytes(std::span(content)), path.string());
}

void WritePng(const fs::path& path, const RgbImage& image) {
  LWM_REQUIRE(image.width > 0 && image.height > 0, path.string(),
              ": an image without pixels cannot be written");
  WriteFileAtomically(path, EncodePng(image));
}

}  // namespace lwm::io
