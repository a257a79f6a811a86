#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lwm/io/image.h"
#include "lwm/io/video_reader.h"

namespace lwm::vision {

// The choice of a video's frames, beginning at start_seconds:
//   neither number      every frame
//   frames_per_second   at most that many of every second, by the times at which they are shown
//   max_frames          spread evenly over all that follows the start, both ends included
//   both                at that rate, no more than max_frames
struct VideoOptions {
  double frames_per_second = 0;
  int64_t max_frames = 0;
  double start_seconds = 0;
};

// The chosen frames of one video in their own size, one in memory at a time. With max_frames alone
// the video is decoded twice, once to count. A video that was read to its end and is damaged or
// shorter than it says costs one line on stderr. Not for concurrent use.
class VideoFrames {
 public:
  // Throws Error(kNotFound) when the file is missing, Error(kCorruptData) when it is no video,
  // holds no frame, ends before the start, or does not state the rate that the options need,
  // Error(kInvalidArgument) on a negative option.
  VideoFrames(const std::filesystem::path& path, const VideoOptions& options);

  // The next frame, or nothing at the end. Throws Error(kCorruptData) for what cannot be decoded
  // and, at the end, when there was no frame at all.
  std::optional<io::RgbImage> Next();

  // The share of the video that was read so far, in [0, 1], by its stated number of frames.
  double ShareRead() const;

 private:
  void RequireFrames(bool some) const;
  bool IsDone() const;
  // Of the frame that the reader grabbed last: its time in frames of the stated rate.
  double PlaceOf(const io::VideoReader& reader) const;
  bool IsAfterStart(const io::VideoReader& reader) const;
  bool IsWanted();  // asked once of every frame after the start
  void Warn(const std::string& warning);

  std::filesystem::path path_;
  VideoOptions options_;
  io::VideoReader reader_;
  double rate_;                  // as the video states it
  std::vector<int64_t> chosen_;  // of the frames after the start; empty = all, or by rate
  int64_t grabbed_ = 0;
  int64_t passed_ = 0;  // frames after the start
  int64_t taken_ = 0;
  double first_place_ = 0, last_tick_ = 0;
  bool warned_ = false;
};

}  // namespace lwm::vision
