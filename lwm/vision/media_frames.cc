#include "lwm/vision/media_frames.h"

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/io/image_file.h"
#include "lwm/io/media_names.h"
#include "lwm/io/resample.h"

namespace lwm::vision {
namespace fs = std::filesystem;

MediaFolder ListMedia(const fs::path& folder) {
  const fs::directory_iterator entries(folder);
  std::vector<fs::directory_entry> inside(begin(entries), end(entries));
  std::sort(inside.begin(), inside.end());
  MediaFolder result;
  for (const auto& entry : inside) {
    const fs::path& path = entry.path();
    std::error_code ignored;  // of links that lead nowhere
    if (entry.is_directory(ignored)) continue;
    if (!io::IsImageName(path) && !io::IsVideoName(path))
      result.skipped.push_back({path, "not an image or video by its name"});
    else if (path.filename().string().starts_with('.'))
      result.skipped.push_back({path, "hidden"});
    else if (!entry.is_regular_file(ignored))
      result.skipped.push_back({path, "not a file, or a link that leads nowhere"});
    else
      result.files.push_back(path);
  }
  return result;
}

MediaFrames::MediaFrames(const std::vector<fs::path>& paths, const MediaOptions& options)
    : options_(options) {
  LWM_REQUIRE(options.max_frames == 0 || options.frames_per_second == 0,
              "choose frames of a video by their number or by rate, not both");
  for (const fs::path& path : paths) {
    LWM_REQUIRE_AS(ErrorCode::kNotFound, fs::exists(path), "cannot read ", path.string(),
                   ": no such file or folder");
    if (!fs::is_directory(path)) {
      files_.push_back(path);
      continue;
    }
    const MediaFolder folder = ListMedia(path);
    files_.insert(files_.end(), folder.files.begin(), folder.files.end());
    skipped_.insert(skipped_.end(), folder.skipped.begin(), folder.skipped.end());
  }
  LWM_REQUIRE(!files_.empty(), "there is no image or video to read",
              paths.empty() ? std::string() : " in " + paths[0].string());
  for (const fs::path& file : files_) {
    std::error_code error;
    const auto size = fs::file_size(file, error);
    bytes_.push_back(error ? 0 : static_cast<double>(size));
  }
}

MediaFrames::~MediaFrames() = default;

std::optional<io::RgbImage> MediaFrames::NextOfCurrent() {
  if (video_) {
    auto frame = video_->Next();
    if (!frame) video_.reset();
    return frame;
  }
  const fs::path& path = files_[next_file_++];
  if (!io::IsVideoFile(path)) {
    io::RgbImage image = io::ReadImage(path);
    items_.push_back({path, frames_, 0});
    return image;
  }
  auto video = std::make_unique<VideoFrames>(
      path, VideoOptions{options_.frames_per_second, options_.max_frames, 0});
  items_.push_back({path, frames_, 0});
  video_ = std::move(video);
  return {};
}

double MediaFrames::ShareRead() const {
  double read = 0, all = 1;
  for (size_t i = 0; i < bytes_.size(); ++i) {
    all += bytes_[i];
    if (i < next_file_) read += bytes_[i];
  }
  if (video_) read -= bytes_[next_file_ - 1] * (1 - video_->ShareRead());
  return read / all;
}

void MediaFrames::Skip(const std::string& reason) {
  video_.reset();
  skipped_.push_back({files_[next_file_ - 1], reason});
  // Frames given out before the fault stay; only a file without any disappears from the list.
  if (!items_.empty() && items_.back().frames == 0) items_.pop_back();
}

std::optional<io::RgbImage> MediaFrames::Next() {
  while (video_ || next_file_ < files_.size()) {
    try {
      if (const auto frame = NextOfCurrent()) {
        io::RgbImage prepared =
            io::ResizeAndCrop(*frame, options_.size, items_.back().path.string());
        ++frames_;
        ++items_.back().frames;
        return prepared;
      }
    } catch (const Error& error) {
      // A fault of this program is no property of the file, so it is never skipped.
      if (!options_.skip_bad || error.code() == ErrorCode::kInternal) throw;
      Skip(error.what());
    }
  }
  return {};
}

}  // namespace lwm::vision
