#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lwm/io/image.h"
#include "lwm/vision/video_frames.h"

namespace lwm::vision {

struct MediaOptions {
  int64_t size = 256;            // side of the frames
  int64_t max_frames = 0;        // of a video, spread evenly over all of it; 0 = every frame
  double frames_per_second = 0;  // taken from a video at most; 0 = every frame
  bool skip_bad = false;  // leave out what cannot be decoded (of a broken video the rest), count it
};

// An image or video that was read: its frames are [first, first + frames) of the stream.
struct MediaItem {
  std::filesystem::path path;
  int64_t first = 0, frames = 0;
};

// A path that was left out, and why: not an image or video by its name or no file (in folders),
// or, with skip_bad, broken.
struct SkippedMedia {
  std::filesystem::path path;
  std::string reason;
};

// Entries of a folder, not of the folders inside: images and videos by their names, sorted, and
// the rest. Hidden files are rest: systems and unfinished writers leave them beside the real ones.
// Throws std::filesystem::filesystem_error when the folder cannot be read.
struct MediaFolder {
  std::vector<std::filesystem::path> files;
  std::vector<SkippedMedia> skipped;
};
MediaFolder ListMedia(const std::filesystem::path& folder);

// The frames of images, videos and folders of them (by name, not of folders inside), each resized
// and cropped to size x size (io::ResizeAndCrop), one in memory at a time. Videos are streamed;
// with max_frames they are decoded twice, once to count. Not for concurrent use.
class MediaFrames {
 public:
  // Throws Error(kNotFound) when a path does not exist, Error(kInvalidArgument) when max_frames and
  // frames_per_second are both given or there is nothing to read.
  MediaFrames(const std::vector<std::filesystem::path>& paths, const MediaOptions& options);
  ~MediaFrames();

  // The next frame, or nothing at the end. Without skip_bad throws Error(kCorruptData) for what
  // cannot be decoded and for a video without frames.
  std::optional<io::RgbImage> Next();

  // The share of all media that was read so far, in [0, 1], by the sizes of the files.
  double ShareRead() const;

  const std::vector<MediaItem>& items() const { return items_; }
  const std::vector<SkippedMedia>& skipped() const { return skipped_; }

 private:
  std::optional<io::RgbImage> NextOfCurrent();
  void Skip(const std::string& reason);

  MediaOptions options_;
  std::vector<std::filesystem::path> files_;
  std::vector<double> bytes_;  // of each file
  size_t next_file_ = 0;
  int64_t frames_ = 0;
  std::unique_ptr<VideoFrames> video_;  // being read
  std::vector<MediaItem> items_;
  std::vector<SkippedMedia> skipped_;
};

}  // namespace lwm::vision
