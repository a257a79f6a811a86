#pragma once

#include <memory>
#include <string>

#include "lwm/io/ffmpeg.h"
#include "lwm/io/image.h"
#include "lwm/io/orientation.h"

namespace lwm::io {

// Frames of any pixel format as 8-bit RGB, as the ffmpeg program shows them: by the frame's own
// size, colour matrix and range (BT.601 when the stream does not say), widened or narrowed to
// square pixels, transparency laid on white. Keeps its tables between frames of one kind. Not for
// concurrent use.
class FfmpegImage {
 public:
  FfmpegImage();
  ~FfmpegImage();

  // `pixel_aspect`: width over height of a pixel, 0/1 when unknown. Throws Error(kCorruptData),
  // naming `where`, when the shown size or the pixel format is impossible.
  RgbImage Convert(const AVFrame& frame, AVRational pixel_aspect, const std::string& where);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The turn and flip of a display matrix (nine 16.16 numbers), to the nearest right angle.
Orientation OrientationOf(const int32_t* display_matrix);

}  // namespace lwm::io
