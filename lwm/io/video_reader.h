#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lwm/io/image.h"

namespace lwm::io {

// Threads that each decoder of video may use from now on, process-wide; 1 until it is called.
void SetVideoThreads(int threads);
int VideoThreads();

// The frames of a video or animation in order, one in memory at a time, as the ffmpeg program shows
// them: in their own size and colours, with square pixels, turned upright, and without what an edit
// list leaves out. The format is found by the content. Not for concurrent use.
class VideoReader {
 public:
  // Throws Error(kNotFound) when the file is missing, Error(kCorruptData) when it is no video or
  // its frames have more than kMostPixels.
  explicit VideoReader(const std::filesystem::path& path);
  // The same of bytes in memory, which must outlive it; `where` names them in errors, `wanted` what
  // they should be.
  VideoReader(std::span<const std::byte> bytes, const std::string& where,
              const char* wanted = "a video");
  ~VideoReader();
  VideoReader(const VideoReader&) = delete;
  VideoReader& operator=(const VideoReader&) = delete;

  static constexpr int64_t kMostPixels = int64_t{1} << 26;  // 67 million

  // As the container states it; 0 when it does not.
  double frames_per_second() const;
  // As the container states or implies it, often wrong by a few; 0 when it does not.
  int64_t stated_frames() const;

  // Decodes the next frame and keeps it aside; false at the end. Throws Error(kCorruptData) at the
  // end when the file breaks off, naming the frames that were read.
  bool Grab();
  // When the frame grabbed last is shown, seconds since the first: by its time stamp, so also right
  // where the rate varies. Never falls.
  double seconds() const;
  // The frame grabbed last. Throws Error(kCorruptData) when it cannot be shown.
  RgbImage Retrieve() const;
  // After the end: one line that names the video and how it is damaged or shorter than its header
  // says; empty when it is whole.
  std::string warning() const;

 private:
  struct State;
  explicit VideoReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Number of frames that can be decoded, counted by decoding: containers often state another one.
// With `counts`, only frames for which it returns true, called with the reader after each Grab.
// `warning`, when given, becomes the reader's.
int64_t CountFrames(const std::filesystem::path& path,
                    const std::function<bool(const VideoReader&)>& counts = nullptr,
                    std::string* warning = nullptr);

// The published choice of `wanted` among `frames`: all when there are no more than that, else
// numpy's linspace(0, frames - 1, wanted) cut to whole numbers. Ascending. Both >= 1.
std::vector<int64_t> UniformFrames(int64_t frames, int64_t wanted);

}  // namespace lwm::io
