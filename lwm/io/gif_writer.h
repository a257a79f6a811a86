#pragma once

#include <filesystem>
#include <memory>

#include "lwm/io/video_writer.h"

namespace lwm::io {

// An animated GIF (89a) that repeats for ever. Every frame has a palette of its own: its colours
// when there are at most 256, else 256 by median cut, without dithering. Delays are whole
// hundredths of a second, spread so that the video keeps its rate; viewers may slow down rates
// above 50 frames per second. Sides of at most 65535 pixels.
class GifWriter final : public VideoWriter {
 public:
  // Throws Error(kInvalidArgument) when the rate is not in (0, 100].
  GifWriter(const std::filesystem::path& path, double frames_per_second);
  ~GifWriter() override;
  GifWriter(const GifWriter&) = delete;
  GifWriter& operator=(const GifWriter&) = delete;

  void Add(const RgbImage& frame) override;
  void Finish() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lwm::io
