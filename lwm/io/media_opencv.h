#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lwm/io/image.h"
#include "lwm/io/video_writer.h"

namespace lwm::io {

// Decodes one picture of any format that OpenCV reads (PNG, JPEG, WebP, TIFF, BMP ...): grey, CMYK,
// palette, 16-bit and floating-point pixels become 8-bit RGB, transparency is laid on white, JPEGs
// are turned upright as their EXIF says. `where` names the source in errors.
// Throws Error(kCorruptData) when the bytes are no picture, or a broken or truncated one.
RgbImage DecodeImage(std::span<const std::byte> bytes, const std::string& where);

// The same of a file; of an animated GIF the first frame. Throws Error(kNotFound) too.
RgbImage ReadImage(const std::filesystem::path& path);

// True for the extensions of moving pictures: mp4, mkv, webm, mov, avi, gif ...
bool IsVideoName(const std::filesystem::path& path);
// True for those of pictures.
bool IsImageName(const std::filesystem::path& path);

// The frames of a video in order, one in memory at a time, turned upright as an MP4 or QuickTime
// file says and without what its edit list leaves out. Not for concurrent use.
class VideoReader {
 public:
  // Throws Error(kNotFound) when the file is missing, Error(kCorruptData) when it is no video.
  explicit VideoReader(const std::filesystem::path& path);
  ~VideoReader();
  VideoReader(const VideoReader&) = delete;
  VideoReader& operator=(const VideoReader&) = delete;

  // As the container states it; 0 when it does not.
  double frames_per_second() const;
  // As the container states or implies it, often wrong by a few; 0 when it does not.
  int64_t stated_frames() const;

  // Decodes the next frame and keeps it aside; false at the end. Throws Error(kCorruptData) when an
  // MP4 is truncated or ends long before the last frame of its table.
  bool Grab();
  // When the frame grabbed last is shown, seconds since the first: by its time stamp, so also right
  // where the rate varies. Never falls.
  double seconds() const;
  // The frame grabbed last. Throws Error(kCorruptData) when it cannot be decoded.
  RgbImage Retrieve() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Frames that can really be decoded, counted by decoding: containers are often wrong about it.
// With `counts` those for which it is true of the reader that grabbed them.
int64_t CountFrames(const std::filesystem::path& path,
                    const std::function<bool(const VideoReader&)>& counts = nullptr);

// The published choice of `wanted` among `frames`: all when there are no more than that, else
// numpy's linspace(0, frames - 1, wanted) cut to whole numbers. Ascending. Both >= 1.
std::vector<int64_t> UniformFrames(int64_t frames, int64_t wanted);

// Writes a PNG, atomically.
void WritePng(const std::filesystem::path& path, const RgbImage& image);

// H.264 in an MP4. Odd sizes are widened by one pixel, which H.264 needs.
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
