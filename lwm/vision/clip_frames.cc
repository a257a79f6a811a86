#include "lwm/vision/clip_frames.h"

#include <algorithm>
#include <cmath>

#include "lwm/base/error.h"

namespace lwm::vision {
namespace fs = std::filesystem;

ClipFrames::ClipFrames(const fs::path& path, const ClipOptions& options)
    : path_(path), options_(options), reader_(path) {
  const double rate = reader_.frames_per_second();
  const bool needs_rate = options.frames_per_second > 0 || options.start_seconds > 0;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, !needs_rate || rate > 0, path.string(),
                 ": the video does not state its frame rate; choose frames by number instead");
  if (options.start_seconds > 0)
    first_ = static_cast<int64_t>(std::ceil(options.start_seconds * rate - 1e-6));
  if (options.frames_per_second > 0) {
    step_ = options.frames_per_second / rate;
  } else if (options.max_frames > 0) {
    const int64_t frames = io::CountFrames(path) - first_;
    RequireFrames(frames > 0);
    chosen_ = io::UniformFrames(frames, options.max_frames);
  }
}

std::optional<io::RgbImage> ClipFrames::Next() {
  while (!IsDone() && reader_.Grab()) {
    const int64_t index = grabbed_++ - first_;
    if (index < 0 || !IsWanted(index)) continue;
    ++taken_;
    return reader_.Retrieve();
  }
  RequireFrames(taken_ > 0);
  return {};
}

double ClipFrames::ShareRead() const {
  const int64_t frames = reader_.stated_frames();
  return frames > 0 ? std::min(1.0, static_cast<double>(grabbed_) / static_cast<double>(frames))
                    : 0;
}

void ClipFrames::RequireFrames(bool some) const {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, some, path_.string(),
                 ": the video holds no frame that can be decoded",
                 first_ > 0 ? Cat(" after ", options_.start_seconds, " s") : "");
}

bool ClipFrames::IsDone() const {
  if (!chosen_.empty()) return taken_ == static_cast<int64_t>(chosen_.size());
  return options_.max_frames > 0 && taken_ == options_.max_frames;
}

bool ClipFrames::IsWanted(int64_t index) const {
  if (!chosen_.empty()) return chosen_[static_cast<size_t>(taken_)] == index;
  if (step_ == 0 || index == 0) return true;
  const auto tick = [&](int64_t i) { return std::floor(static_cast<double>(i) * step_ + 1e-9); };
  return tick(index) > tick(index - 1);
}

}  // namespace lwm::vision
