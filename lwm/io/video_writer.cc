#include "lwm/io/video_writer.h"

#include <string>

#include "lwm/base/error.h"
#include "lwm/io/gif_writer.h"
#include "lwm/io/mp4_writer.h"

namespace lwm::io {
namespace {

std::string Extension(const std::filesystem::path& path) { return path.extension().string(); }

}  // namespace

bool IsWritableVideoName(const std::filesystem::path& path) {
  return Extension(path) == ".mp4" || Extension(path) == ".gif";
}

std::unique_ptr<VideoWriter> MakeVideoWriter(const std::filesystem::path& path,
                                             double frames_per_second) {
  LWM_REQUIRE(IsWritableVideoName(path), path.string(),
              ": want a name that ends in .mp4 or .gif for a moving image");
  if (Extension(path) == ".gif") return std::make_unique<GifWriter>(path, frames_per_second);
  return std::make_unique<Mp4Writer>(path, frames_per_second);
}

}  // namespace lwm::io
