#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lwm/base/random.h"
#include "lwm/io/image.h"
#include "lwm/vision/media_frames.h"
#include "lwm/vision_train/augment.h"

namespace lwm::vision_train {

// An image, a video or a folder of them (not of folders inside).
struct ImageSource {
  std::filesystem::path path;
  double weight = 1;             // its share of the draws, relative to the other sources; >= 0
  int64_t max_frames = 0;        // of each video, spread evenly over all of it; 0 = every frame
  double frames_per_second = 0;  // taken of each video at most; 0 = every frame
};

struct ImageSetOptions {
  int64_t size = 64;  // side of the training images
  std::vector<ImageSource> sources;
  // A text file of file names ("0014.png"), one a line, whose images are never trained on; of a
  // video all frames. Empty = none.
  std::filesystem::path held_out;
  bool skip_bad = false;                          // leave out what cannot be decoded, and count it
  int64_t memory_limit_bytes = int64_t{8} << 30;  // of the images held in memory
};

// Images held in memory as bytes at twice the training size (short side resized, middle cropped):
// 12 * size^2 bytes each. All tensors are f32 [n,size,size,3] in [-1,1].
// Safe to use from many threads.
class ImageSet {
 public:
  // Reads everything. Throws Error(kNotFound) for a path that does not exist, Error(kCorruptData)
  // naming an image or video that cannot be decoded (without skip_bad), Error(kInvalidArgument)
  // when nothing is left to train on, or a held-out name is not among the images, or names of
  // held-out images repeat, Error(kResourceExhausted) when the limit is passed.
  explicit ImageSet(const ImageSetOptions& options);

  int64_t size() const { return size_; }
  int64_t num_trained() const { return static_cast<int64_t>(trained_.size()); }
  int64_t num_held_out() const { return static_cast<int64_t>(held_out_.size()); }
  const std::vector<vision::SkippedMedia>& skipped() const { return skipped_; }

  // `n` training images drawn with replacement, a source by its weight, then any of its images,
  // each changed as `augment` says. A pure function of `random`, from which it takes the same
  // number of values for every image. Cost: below 2 ms for 8 images of 64 x 64 on one core.
  at::Tensor Batch(int64_t n, Random& random, const AugmentOptions& augment) const;

  // Unchanged images (2 x 2 averages of the stored ones), in the order of sources, names and
  // frames: all that are held out (n = 0 when none is), and training images [first, first +
  // count).
  at::Tensor HeldOut() const;
  at::Tensor Trained(int64_t first, int64_t count) const;

 private:
  struct Share {
    double upper = 0;  // of the cumulated weights
    int64_t first = 0, count = 0;
  };
  void ReadSource(const ImageSource& source, const ImageSetOptions& options);
  at::Tensor Plain(const std::vector<io::RgbImage>& images, int64_t first, int64_t count) const;

  int64_t size_;
  std::vector<std::string> held_out_names_;  // sorted
  std::vector<bool> held_out_seen_;
  std::vector<io::RgbImage> trained_, held_out_;
  std::vector<Share> shares_;
  std::vector<vision::SkippedMedia> skipped_;
};

}  // namespace lwm::vision_train
