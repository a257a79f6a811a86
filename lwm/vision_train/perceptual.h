#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <vector>

namespace lwm::vision_train {

// Distance of two sets of features of the same images, differentiable, [N]: at every level and
// position features x become x / sqrt(|x|^2 + 1e-6), |x| over channels; squared differences are
// summed over channels (weighted if `channel_weights` holds [C] of each level), averaged over
// positions, and summed over levels (Zhang et al. 2018, "LPIPS"). Features are [N,C,h,w] a level.
// 0 for equal features, at most 4 a level when unweighted.
// Throws Error(kInvalidArgument) when levels or shapes differ.
at::Tensor PerceptualDistance(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b,
                              const std::vector<at::Tensor>& channel_weights = {});

// A small stack of 3x3 convolutions with ReLUs, levels parted by 2x2 maximum pooling (as in VGG),
// fixed while other models train on its features. What it is good for depends on its weights:
//   Random: no training at all. Such features weigh edges and local contrast more than a pixel loss
//     does and sharpen a little; they know nothing of objects and judge likeness about as well as
//     SSIM does, not as people do.
//   Read: whatever the file was trained for; with VGG16's weights and LPIPS's channel weights it is
//     LPIPS itself.
// A discriminator's features (PatchDiscriminator::Features) are the third choice: they follow the
// data, cost no extra model, but drift while it trains, so distances of different steps do not
// compare.
class FeatureNet {
 public:
  // One convolution a level, normal(0, sqrt(2 / fan in)), biases 0, a pure function of the seed.
  // Throws Error(kInvalidArgument) on an empty list or channels < 1.
  static FeatureNet Random(const std::vector<int64_t>& channels, uint64_t seed,
                           at::ScalarType dtype = at::kFloat);

  // From a safetensors file: "level.I.conv.J.weight" [O,I,3,3] and ".bias" [O], I and J counted
  // from 0; optional "level.I.channel_weight" [C] (none or all levels) and "input.mean",
  // "input.std" [3], by which images in [-1,1] are shifted and scaled first. Nothing else may be
  // in it. Throws Error(kCorruptData) naming the tensor.
  static FeatureNet Read(const std::filesystem::path& path, at::ScalarType dtype = at::kFloat);

  // Images [N,H,W,3] in [-1,1] to the outputs of each level, fine to coarse. Weights take no
  // gradients, images do. Throws Error(kInvalidArgument) when a side is below 2^(levels - 1).
  std::vector<at::Tensor> Features(const at::Tensor& images_NHWC) const;

  // PerceptualDistance of the features, [N].
  at::Tensor Distance(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC) const;

  int64_t num_levels() const { return static_cast<int64_t>(levels_.size()); }

 private:
  struct Conv {
    at::Tensor weight_OIHW, bias_O;
  };
  struct Level {
    std::vector<Conv> convs;
    at::Tensor channel_weight_C;  // undefined = unweighted
  };
  std::vector<Level> levels_;
  at::Tensor mean_3_, std_3_;  // undefined = none
  at::ScalarType dtype_ = at::kFloat;
};

}  // namespace lwm::vision_train
