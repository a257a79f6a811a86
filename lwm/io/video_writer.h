#pragma once

#include <filesystem>
#include <memory>

#include "lwm/io/image.h"

namespace lwm::io {

// Writes a moving image frame by frame; the file appears on Finish, otherwise nothing is left.
// All frames have the size of the first.
class VideoWriter {
 public:
  virtual ~VideoWriter() = default;

  // Throws Error(kInvalidArgument) when the size differs or the place is not writable.
  virtual void Add(const RgbImage& frame) = 0;
  // Throws Error(kInvalidArgument) when no frame was added, Error(kResourceExhausted) when the disk
  // is full.
  virtual void Finish() = 0;
};

// True when MakeVideoWriter knows the extension.
bool IsWritableVideoName(const std::filesystem::path& path);

// By the extension: H.264 in .mp4 (io::Mp4Writer) or an endless .gif (io::GifWriter).
// Throws Error(kInvalidArgument) for other names, and when the rate is not in (0, 1000] (GIF: at
// most 100).
std::unique_ptr<VideoWriter> MakeVideoWriter(const std::filesystem::path& path,
                                             double frames_per_second);

}  // namespace lwm::io
