#include "lwm/vision/video_frames.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "lwm/base/error.h"

namespace lwm::vision {
namespace fs = std::filesystem;

VideoFrames::VideoFrames(const fs::path& path, const VideoOptions& options)
    : path_(path), options_(options), reader_(path), rate_(reader_.frames_per_second()) {
  LWM_REQUIRE(
      options.frames_per_second >= 0 && options.max_frames >= 0 && options.start_seconds >= 0,
      path.string(), ": frames per second, most frames and start must not be negative");
  const bool needs_rate = options.frames_per_second > 0 || options.start_seconds > 0;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, !needs_rate || rate_ > 0, path.string(),
                 ": the video does not state its frame rate; choose frames by number instead");
  if (options.frames_per_second == 0 && options.max_frames > 0) {
    std::string warning;
    // A spread over the video needs its number of frames, and containers often state a wrong one:
    // it is decoded once more to count.
    const int64_t frames = io::CountFrames(
        path, [&](const io::VideoReader& reader) { return IsAfterStart(reader); }, &warning);
    RequireFrames(frames > 0);
    Warn(warning);
    chosen_ = io::UniformFrames(frames, options.max_frames);
  }
}

std::optional<io::RgbImage> VideoFrames::Next() {
  while (!IsDone() && reader_.Grab()) {
    ++grabbed_;
    if (!IsAfterStart(reader_) || !IsWanted()) continue;
    ++taken_;
    return reader_.Retrieve();
  }
  RequireFrames(taken_ > 0);
  Warn(reader_.warning());
  return {};
}

double VideoFrames::ShareRead() const {
  const int64_t frames = reader_.stated_frames();
  return frames > 0 ? std::min(1.0, static_cast<double>(grabbed_) / static_cast<double>(frames))
                    : 0;
}

void VideoFrames::RequireFrames(bool some) const {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, some, path_.string(),
                 ": the video holds no frame that can be decoded",
                 options_.start_seconds > 0 ? Cat(" after ", options_.start_seconds, " s") : "");
}

void VideoFrames::Warn(const std::string& warning) {
  if (warning.empty() || warned_) return;
  std::fprintf(stderr, "warning: %s\n", warning.c_str());
  warned_ = true;
}

bool VideoFrames::IsDone() const {
  if (!chosen_.empty()) return taken_ == static_cast<int64_t>(chosen_.size());
  return options_.max_frames > 0 && taken_ == options_.max_frames;
}

// Many containers round times to milliseconds: a frame that is as near to its place at a steady
// rate stands there.
double VideoFrames::PlaceOf(const io::VideoReader& reader) const {
  constexpr double kRounding = 0.0011;
  const double place = reader.seconds() * rate_, nearest = std::round(place);
  return std::fabs(place - nearest) <= std::min(kRounding * rate_, 0.25) ? nearest : place;
}

bool VideoFrames::IsAfterStart(const io::VideoReader& reader) const {
  return options_.start_seconds == 0 || PlaceOf(reader) >= options_.start_seconds * rate_ - 1e-6;
}

bool VideoFrames::IsWanted() {
  const int64_t index = passed_++;
  if (!chosen_.empty()) return chosen_[static_cast<size_t>(taken_)] == index;
  if (options_.frames_per_second == 0) return true;
  const double place = PlaceOf(reader_);
  if (index == 0) first_place_ = place;
  // The first frame of each period of the wanted rate is taken: by time stamps, so also right where
  // the rate varies.
  const double ticks = (place - first_place_) * (options_.frames_per_second / rate_);
  const double tick = std::floor(ticks + 1e-9);
  if (index > 0 && tick <= last_tick_) return false;
  last_tick_ = tick;
  return true;
}

}  // namespace lwm::vision
