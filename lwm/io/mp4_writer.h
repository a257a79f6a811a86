#pragma once

#include <filesystem>
#include <memory>

#include "lwm/io/video_writer.h"

namespace lwm::io {

// H.264 in an MP4, marked as BT.709. Odd sizes are widened by one pixel, which H.264 needs.
class Mp4Writer final : public VideoWriter {
 public:
  // Throws Error(kInvalidArgument) when the rate is not in (0, 1000].
  Mp4Writer(const std::filesystem::path& path, double frames_per_second);
  ~Mp4Writer() override;
  Mp4Writer(const Mp4Writer&) = delete;
  Mp4Writer& operator=(const Mp4Writer&) = delete;

  void Add(const RgbImage& frame) override;
  void Finish() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lwm::io
