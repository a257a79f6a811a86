#include "lwm/vision_train/images.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <sstream>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/text.h"

namespace lwm::vision_train {
namespace {
namespace fs = std::filesystem;

std::vector<std::string> ReadNames(const fs::path& path) {
  std::vector<std::string> names;
  if (path.empty()) return names;
  std::istringstream lines(ReadFile(path));
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  std::sort(names.begin(), names.end());
  const auto repeated = std::adjacent_find(names.begin(), names.end());
  LWM_REQUIRE(repeated == names.end(), path.string(), ": ", *repeated, " is listed twice");
  LWM_REQUIRE(!names.empty(), path.string(), ": the list of held-out images is empty");
  return names;
}

void RequireOptions(const ImageSetOptions& options) {
  LWM_REQUIRE(options.size >= 1 && options.size <= 4096, "training images of ", options.size,
              " pixels a side; want 1 to 4096");
  LWM_REQUIRE(!options.sources.empty(),
              "there are no images to train on: name an image, a "
              "video or a folder of them");
  for (const ImageSource& source : options.sources)
    LWM_REQUIRE(source.weight >= 0 && source.weight < 1e12, source.path.string(), ": weight ",
                source.weight, "; want a number of at least 0");
}

vision::MediaOptions MediaOptionsOf(const ImageSource& source, const ImageSetOptions& options) {
  vision::MediaOptions media;
  media.size = 2 * options.size;
  media.max_frames = source.max_frames;
  media.frames_per_second = source.frames_per_second;
  media.skip_bad = options.skip_bad;
  return media;
}

}  // namespace

ImageSet::ImageSet(const ImageSetOptions& options)
    : size_(options.size), held_out_names_(ReadNames(options.held_out)) {
  RequireOptions(options);
  held_out_seen_.resize(held_out_names_.size());
  for (const ImageSource& source : options.sources) ReadSource(source, options);
  for (size_t i = 0; i < held_out_seen_.size(); ++i)
    LWM_REQUIRE(held_out_seen_[i], options.held_out.string(), ": ", held_out_names_[i],
                " is not among the images");
  LWM_REQUIRE(!shares_.empty(), "there is no image to train on in ",
              options.sources[0].path.string(), options.sources.size() > 1 ? " and the others" : "",
              " whose weight is above 0 and that is not held out");
}

void ImageSet::ReadSource(const ImageSource& source, const ImageSetOptions& options) {
  vision::MediaFrames media({source.path}, MediaOptionsOf(source, options));
  Share share{.upper = shares_.empty() ? 0 : shares_.back().upper, .first = num_trained()};
  const int64_t bytes = 12 * size_ * size_;
  while (auto image = media.Next()) {
    LWM_REQUIRE_AS(ErrorCode::kResourceExhausted,
                   (num_trained() + num_held_out() + 1) * bytes <= options.memory_limit_bytes,
                   source.path.string(), ": images of ", size_, " x ", size_, " take more than ",
                   FormatBytes(static_cast<double>(options.memory_limit_bytes)),
                   "; take fewer frames of the videos");
    // By name, before any split: all frames of a held-out video stay out of training.
    const std::string name = media.items().back().path.filename().string();
    const auto held = std::lower_bound(held_out_names_.begin(), held_out_names_.end(), name);
    const bool is_held = held != held_out_names_.end() && *held == name;
    if (is_held) held_out_seen_[static_cast<size_t>(held - held_out_names_.begin())] = true;
    (is_held ? held_out_ : trained_).push_back(std::move(*image));
  }
  skipped_.insert(skipped_.end(), media.skipped().begin(), media.skipped().end());
  share.count = num_trained() - share.first;
  share.upper += source.weight;
  if (share.count > 0 && source.weight > 0) shares_.push_back(share);
}

at::Tensor ImageSet::Batch(int64_t n, Random& random, const AugmentOptions& augment) const {
  augment.Validate();
  LWM_REQUIRE(n >= 0, "a batch of ", n, " images");
  // All random numbers first, in order: pixels are then computed on any number of threads.
  std::vector<std::pair<const io::RgbImage*, Warp>> draws;
  for (int64_t i = 0; i < n; ++i) {
    const double point = random.Uniform() * shares_.back().upper;
    const auto share = std::find_if(shares_.begin(), shares_.end() - 1,
                                    [&](const Share& one) { return point < one.upper; });
    const auto image =
        share->first + static_cast<int64_t>(random.Below(static_cast<uint64_t>(share->count)));
    draws.emplace_back(&trained_[static_cast<size_t>(image)], DrawWarp(augment, random));
  }
  const at::Tensor batch_NHWC = at::empty({n, size_, size_, 3}, at::kFloat);
  auto* out = batch_NHWC.mutable_data_ptr<float>();
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto& [image, warp] = draws[static_cast<size_t>(i)];
      ApplyWarp(*image, warp, size_, out + i * size_ * size_ * 3);
    }
  });
  return batch_NHWC;
}

at::Tensor ImageSet::Plain(const std::vector<io::RgbImage>& images, int64_t first,
                           int64_t count) const {
  const at::Tensor plain_NHWC = at::empty({count, size_, size_, 3}, at::kFloat);
  auto* out = plain_NHWC.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i)
    ApplyWarp(images[static_cast<size_t>(first + i)], Warp(), size_, out + i * size_ * size_ * 3);
  return plain_NHWC;
}

at::Tensor ImageSet::HeldOut() const { return Plain(held_out_, 0, num_held_out()); }

at::Tensor ImageSet::Trained(int64_t first, int64_t count) const {
  LWM_REQUIRE(first >= 0 && count >= 0 && first <= num_trained() - count, "training images ", first,
              " to ", first + count, " of ", num_trained());
  return Plain(trained_, first, count);
}

}  // namespace lwm::vision_train
