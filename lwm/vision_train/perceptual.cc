#include "lwm/vision_train/perceptual.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <set>
#include <string>

#include "lwm/base/error.h"
#include "lwm/io/safetensors_source.h"
#include "lwm/vision/conv2d.h"

namespace lwm::vision_train {
namespace {

// Larger than what LPIPS adds (1e-10): where all channels are nearly silent the direction of the
// features is noise, and its gradient would swamp the rest.
constexpr double kUnitEps = 1e-6;

at::Tensor UnitOverChannels(const at::Tensor& x_NCHW) {
  return x_NCHW / at::sqrt(x_NCHW.square().sum(1, /*keepdim=*/true) + kUnitEps);
}

at::ScalarType TypeOf(io::DType dtype) {
  switch (dtype) {
    case io::DType::kF64:
      return at::kDouble;
    case io::DType::kBF16:
      return at::kBFloat16;
    case io::DType::kF16:
      return at::kHalf;
    default:
      return at::kFloat;
  }
}

// The tensors of a feature file, each checked and counted as it is taken.
class FeatureFile {
 public:
  FeatureFile(const std::filesystem::path& path, at::ScalarType dtype)
      : source_(path), dtype_(dtype) {}

  bool Has(const std::string& name) const { return source_.contains(name); }

  // `shape` with -1 for a size that may be any.
  at::Tensor Take(const std::string& name, const std::vector<int64_t>& shape) {
    Require(Has(name), name, "is missing");
    const io::TensorInfo& info = source_.info(name);
    bool fits = info.shape.size() == shape.size() && io::IsFloat(info.dtype);
    for (size_t i = 0; fits && i < shape.size(); ++i)
      fits = info.shape[i] > 0 && (shape[i] < 0 || info.shape[i] == shape[i]);
    Require(fits, name,
            Cat("is ", io::SafetensorsName(info.dtype), " ", io::ShapeText(info.shape),
                ", wanted a float type ", io::ShapeText(shape), " (-1: any)"));
    at::Tensor stored = at::empty(info.shape, TypeOf(info.dtype));
    source_.Read(name, {static_cast<std::byte*>(stored.mutable_data_ptr()), stored.nbytes()});
    Require(at::isfinite(stored).all().item<bool>(), name, "holds NaN or infinity");
    taken_.insert(name);
    return stored.to(dtype_);
  }

  void RequireAllTaken() const {
    for (const io::TensorInfo& info : source_.infos())
      Require(taken_.contains(info.name), info.name, "is no part of a feature net");
  }

  void Require(bool condition, const std::string& name, const std::string& problem) const {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, condition, source_.where(), ": tensor ", name, " ",
                   problem);
  }

 private:
  io::SafetensorsSource source_;
  at::ScalarType dtype_;
  std::set<std::string> taken_;
};

}  // namespace

at::Tensor PerceptualDistance(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b,
                              const std::vector<at::Tensor>& channel_weights) {
  LWM_REQUIRE(!a.empty() && a.size() == b.size() &&
                  (channel_weights.empty() || channel_weights.size() == a.size()),
              "perceptual distance: ", a.size(), " levels against ", b.size(), " with ",
              channel_weights.size(), " lists of weights");
  at::Tensor total_N;
  for (size_t i = 0; i < a.size(); ++i) {
    LWM_REQUIRE(a[i].dim() == 4 && a[i].sizes() == b[i].sizes(),
                "perceptual distance: features of level ", i, " are ", a[i].sizes(), " and ",
                b[i].sizes());
    at::Tensor difference = (UnitOverChannels(a[i]) - UnitOverChannels(b[i])).square();
    if (!channel_weights.empty()) {
      LWM_REQUIRE(channel_weights[i].dim() == 1 && channel_weights[i].size(0) == a[i].size(1),
                  "perceptual distance: ", channel_weights[i].sizes(), " weights for ",
                  a[i].size(1), " channels of level ", i);
      difference = difference * channel_weights[i].view({1, -1, 1, 1});
    }
    const at::Tensor level_N = difference.sum(1).mean({1, 2});
    total_N = total_N.defined() ? total_N + level_N : level_N;
  }
  return total_N;
}

FeatureNet FeatureNet::Random(const std::vector<int64_t>& channels, uint64_t seed,
                              at::ScalarType dtype) {
  LWM_REQUIRE(!channels.empty(), "feature net: there are no levels");
  at::Generator generator = at::detail::createCPUGenerator(seed);
  FeatureNet net;
  net.dtype_ = dtype;
  int64_t in = 3;
  for (const int64_t out : channels) {
    LWM_REQUIRE(out >= 1 && out <= 4096, "feature net: a level of ", out,
                " channels; want 1 to 4096");
    // Keeps the size of activations through ReLUs (He et al. 2015).
    const double deviation = std::sqrt(2.0 / static_cast<double>(in * 9));
    const at::Tensor weight = at::empty({out, in, 3, 3}).normal_(0, deviation, generator);
    net.levels_.push_back({{{weight.to(dtype), at::zeros({out}, dtype)}}, {}});
    in = out;
  }
  return net;
}

FeatureNet FeatureNet::Read(const std::filesystem::path& path, at::ScalarType dtype) {
  FeatureFile file(path, dtype);
  FeatureNet net;
  net.dtype_ = dtype;
  int64_t in = 3;
  const bool weighted = file.Has("level.0.channel_weight");
  for (int64_t i = 0; i == 0 || file.Has(Cat("level.", i, ".conv.0.weight")); ++i) {
    Level level;
    const std::string prefix = Cat("level.", i, ".");
    for (int64_t j = 0; j == 0 || file.Has(Cat(prefix, "conv.", j, ".weight")); ++j) {
      const std::string conv = Cat(prefix, "conv.", j);
      const at::Tensor weight = file.Take(conv + ".weight", {-1, in, 3, 3});
      in = weight.size(0);
      level.convs.push_back({weight, file.Take(conv + ".bias", {in})});
    }
    if (weighted) level.channel_weight_C = file.Take(prefix + "channel_weight", {in});
    net.levels_.push_back(level);
  }
  if (file.Has("input.mean") || file.Has("input.std")) {
    net.mean_3_ = file.Take("input.mean", {3});
    net.std_3_ = file.Take("input.std", {3});
    file.Require(net.std_3_.gt(0).all().item<bool>(), "input.std", "is not above 0");
  }
  file.RequireAllTaken();
  return net;
}

std::vector<at::Tensor> FeatureNet::Features(const at::Tensor& images_NHWC) const {
  const int64_t smallest = int64_t{1} << (num_levels() - 1);
  LWM_REQUIRE(images_NHWC.dim() == 4 && images_NHWC.size(3) == 3 &&
                  images_NHWC.is_floating_point() && images_NHWC.size(1) >= smallest &&
                  images_NHWC.size(2) >= smallest,
              "feature net: want images [N,H,W,3] of a float type, at least ", smallest, " x ",
              smallest, " pixels, got ", images_NHWC.sizes(), " ", images_NHWC.scalar_type());
  at::Tensor x = images_NHWC.to(dtype_);
  if (mean_3_.defined()) x = (x - mean_3_) / std_3_;
  x = x.permute({0, 3, 1, 2}).contiguous();
  std::vector<at::Tensor> features;
  for (const Level& level : levels_) {
    if (!features.empty()) x = at::max_pool2d(x, {2, 2});
    for (const Conv& conv : level.convs)
      x = at::relu(vision::Conv2d(x, conv.weight_OIHW, conv.bias_O, 1, 1));
    features.push_back(x);
  }
  return features;
}

at::Tensor FeatureNet::Distance(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC) const {
  std::vector<at::Tensor> weights;
  for (const Level& level : levels_)
    if (level.channel_weight_C.defined()) weights.push_back(level.channel_weight_C);
  return PerceptualDistance(Features(a_NHWC), Features(b_NHWC), weights);
}

}  // namespace lwm::vision_train
