#include "lwm/vision/vqgan.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/ops/conv/group_norm_silu.h"
#include "lwm/vision/trained_conv.h"

namespace lwm::vision {
namespace {

constexpr double kNormEps = 1e-6;
// Latents whose distances to all codes are held at once: 32 MiB for 8192 codes.
constexpr int64_t kQuantiseRows = 1024;

at::MemoryFormat LayoutFor(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
}

at::Tensor Definition(const ConvWeights& conv, const at::Tensor& x_NCHW, int64_t stride,
                      int64_t padding) {
  if (x_NCHW.scalar_type() == at::kDouble)
    return at::conv2d(x_NCHW, conv.weight_OIHW, conv.bias_O, stride, padding);
  return TrainedConv(x_NCHW, conv.weight_OIHW, conv.bias_O, stride, padding);
}

at::Tensor Conv(const ConvWeights& conv, const at::Tensor& x_NCHW) {
  if (conv.frozen) return conv.frozen->Run(x_NCHW);
  return Definition(conv, x_NCHW, 1, conv.weight_OIHW.size(2) / 2);
}

// y_NCHW plus the convolution, which may be written over y_NCHW.
at::Tensor AddConv(at::Tensor y_NCHW, const ConvWeights& conv, const at::Tensor& x_NCHW) {
  if (!conv.frozen) return y_NCHW + Conv(conv, x_NCHW);
  conv.frozen->AddTo(y_NCHW, x_NCHW);
  return y_NCHW;
}

at::Tensor Halve(const ConvWeights& conv, const at::Tensor& x_NCHW) {
  if (conv.frozen) return conv.frozen->Run(x_NCHW);
  // At the right and bottom only, as taming-transformers and diffusers pad before stride 2.
  const at::Tensor padded = at::constant_pad_nd(x_NCHW, {0, 1, 0, 1});
  return Definition(conv, padded, 2, 0);
}

at::Tensor Double(const ConvWeights& conv, const at::Tensor& x_NCHW) {
  if (conv.frozen) return conv.frozen->Run(x_NCHW);
  return Conv(conv, at::upsample_nearest2d(x_NCHW, {2 * x_NCHW.size(2), 2 * x_NCHW.size(3)}));
}

void FreezeConv(ConvWeights& conv, ConvKind kind, at::ScalarType dtype) {
  if (!conv.defined()) return;
  conv.frozen = std::make_shared<FrozenConv>(kind, conv.weight_OIHW, conv.bias_O, dtype);
  // The frozen form has its own copy; one set of weights in memory is enough.
  conv.weight_OIHW = conv.bias_O = at::Tensor();
}

// Whole squares only: the rest at the right and bottom is cut, as strided convolutions do.
at::Tensor SpaceToDepth(const at::Tensor& x_NCHW, int64_t side) {
  const int64_t height = x_NCHW.size(2) / side * side, width = x_NCHW.size(3) / side * side;
  return at::pixel_unshuffle(x_NCHW.narrow(2, 0, height).narrow(3, 0, width), side);
}

void RequireImages(const at::Tensor& images, int64_t smallest) {
  LWM_REQUIRE(images.dim() == 4 && images.size(3) == 3 && images.is_floating_point(),
              "VQGAN encode: want images [N,H,W,3] of a float type, got ", images.sizes(), " ",
              images.scalar_type());
  LWM_REQUIRE(images.size(1) >= smallest && images.size(2) >= smallest, "VQGAN encode: images of ",
              images.size(2), " x ", images.size(1), " pixels are below ", smallest, " x ",
              smallest, ", what one code stands for; enlarge them");
  LWM_REQUIRE(at::isfinite(images).all().item<bool>(),
              "VQGAN encode: images hold NaN or infinity; want pixels in [-1, 1]");
}

}  // namespace

Vqgan::Vqgan(config::VqganConfig config, VqganWeights weights, at::ScalarType dtype)
    : config_(std::move(config)), weights_(std::move(weights)), dtype_(dtype) {
  config_.Validate();
  bool differentiable = false;
  LWM_REQUIRE(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble,
              "VQGAN: arithmetic in ", dtype, " is not supported, want f32 or bf16");
  ForEachWeight(config_, weights_, [&](const VqganSpec& spec, at::Tensor& weight) {
    LWM_REQUIRE(weight.defined() && weight.sizes() == at::IntArrayRef(spec.shape), "VQGAN weight ",
                spec.name, " is ", weight.defined() ? Cat(weight.sizes()) : "missing",
                ", the config wants ", at::IntArrayRef(spec.shape));
    differentiable |= weight.requires_grad();
  });
  // Distances stay in f32 when the arithmetic is bf16: its 8 bits of mantissa would make near codes
  // equal.
  codebook_VC_ = weights_.codebook_VC.to(dtype == at::kDouble ? at::kDouble : at::kFloat);
  codebook_norm_V_ = codebook_VC_.square().sum(1);
  // Training needs the plain weights as leaves; inference gets forms laid out once for speed.
  if (!differentiable && dtype != at::kDouble) {
    Freeze();
    return;
  }
  ForEachWeight(config_, weights_, [&](const VqganSpec&, at::Tensor& weight) {
    if (&weight == &weights_.codebook_VC) return;
    weight = weight.to(dtype);
  });
}

void Vqgan::Freeze() {
  const auto freeze_blocks = [&](std::vector<ResnetWeights>& blocks) {
    for (ResnetWeights& block : blocks)
      for (ConvWeights* conv : {&block.conv1, &block.conv2, &block.shortcut})
        FreezeConv(*conv, ConvKind::kSame, dtype_);
  };
  for (PyramidWeights* side : {&weights_.encoder, &weights_.decoder}) {
    const auto resample = side == &weights_.encoder ? ConvKind::kHalve : ConvKind::kDouble;
    for (ConvWeights* conv : {&side->conv_in, &side->conv_out})
      FreezeConv(*conv, ConvKind::kSame, dtype_);
    for (LevelWeights& level : side->levels) {
      freeze_blocks(level.resnets);
      FreezeConv(level.resample, resample, dtype_);
    }
    freeze_blocks(side->middle);
  }
  for (ConvWeights* conv : {&weights_.quant_conv, &weights_.post_quant_conv})
    FreezeConv(*conv, ConvKind::kSame, dtype_);
}

at::Tensor Vqgan::NormSilu(const NormWeights& norm, const at::Tensor& x_NCHW) const {
  return ops::GroupNormSilu(x_NCHW, norm.scale_C, norm.bias_C, config_.norm_num_groups, kNormEps);
}

at::Tensor Vqgan::Resnet(const ResnetWeights& block, const at::Tensor& x_NCHW) const {
  const at::Tensor middle = Conv(block.conv1, NormSilu(block.norm1, x_NCHW));
  const at::Tensor straight = block.shortcut.defined() ? Conv(block.shortcut, x_NCHW) : x_NCHW;
  return AddConv(straight, block.conv2, NormSilu(block.norm2, middle));
}

at::Tensor Vqgan::RunEncoder(at::Tensor x_NCHW) const {
  const PyramidWeights& side = weights_.encoder;
  x_NCHW = Conv(side.conv_in, x_NCHW);
  for (const LevelWeights& level : side.levels) {
    for (const ResnetWeights& block : level.resnets) x_NCHW = Resnet(block, x_NCHW);
    if (level.resample.defined()) x_NCHW = Halve(level.resample, x_NCHW);
  }
  for (const ResnetWeights& block : side.middle) x_NCHW = Resnet(block, x_NCHW);
  return Conv(side.conv_out, NormSilu(side.norm_out, x_NCHW));
}

at::Tensor Vqgan::RunDecoder(at::Tensor x_NCHW) const {
  const PyramidWeights& side = weights_.decoder;
  x_NCHW = Conv(side.conv_in, x_NCHW);
  for (const ResnetWeights& block : side.middle) x_NCHW = Resnet(block, x_NCHW);
  for (const LevelWeights& level : side.levels) {
    for (const ResnetWeights& block : level.resnets) x_NCHW = Resnet(block, x_NCHW);
    if (level.resample.defined()) x_NCHW = Double(level.resample, x_NCHW);
  }
  return Conv(side.conv_out, NormSilu(side.norm_out, x_NCHW));
}

at::Tensor Vqgan::Latents(const at::Tensor& images_NHWC) const {
  RequireImages(images_NHWC, config_.Reduction());
  const auto stored = codebook_VC_.scalar_type();
  const int64_t images = images_NHWC.size(0);
  if (images == 0)
    return at::empty({0, images_NHWC.size(1) / config_.Reduction(),
                      images_NHWC.size(2) / config_.Reduction(), config_.vq_embed_dim},
                     stored);
  at::Tensor x_NCHW = images_NHWC.to(dtype_).permute({0, 3, 1, 2});
  if (config_.space_to_depth > 1) x_NCHW = SpaceToDepth(x_NCHW, config_.space_to_depth);
  // The layout that all convolutions and norms keep: later layers copy nothing.
  x_NCHW = x_NCHW.contiguous(LayoutFor(dtype_));
  const at::Tensor z_NCHW = Conv(weights_.quant_conv, RunEncoder(x_NCHW));
  return z_NCHW.permute({0, 2, 3, 1}).to(stored).contiguous();
}

at::Tensor Vqgan::Quantise(const at::Tensor& latents_NhwC) const {
  LWM_REQUIRE(latents_NhwC.dim() == 4 && latents_NhwC.size(3) == config_.vq_embed_dim,
              "VQGAN quantise: want latents [N,h,w,", config_.vq_embed_dim, "], got ",
              latents_NhwC.sizes());
  LWM_REQUIRE(at::isfinite(latents_NhwC).all().item<bool>(),
              "VQGAN quantise: latents hold NaN or infinity; the weights do not fit the dtype");
  const at::Tensor z_RC =
      latents_NhwC.reshape({-1, config_.vq_embed_dim}).to(codebook_VC_.scalar_type());
  const at::Tensor code_R = at::empty({z_RC.size(0)}, at::kInt);
  for (int64_t begin = 0; begin < z_RC.size(0); begin += kQuantiseRows) {
    const int64_t rows = std::min(kQuantiseRows, z_RC.size(0) - begin);
    // |z|^2 is the same for all codes of a row and is left out.
    const at::Tensor distance_RV =
        at::addmm(codebook_norm_V_, z_RC.narrow(0, begin, rows), codebook_VC_.t(), 1, -2);
    code_R.narrow(0, begin, rows).copy_(distance_RV.argmin(1));
  }
  const auto sizes = latents_NhwC.sizes();
  return code_R.view({sizes[0], sizes[1], sizes[2]});
}

void Vqgan::RequireCodes(const at::Tensor& codes_Nhw) const {
  LWM_REQUIRE(codes_Nhw.dim() == 3 && at::isIntegralType(codes_Nhw.scalar_type(), false),
              "VQGAN decode: want integer codes [N,h,w], got ", codes_Nhw.sizes(), " ",
              codes_Nhw.scalar_type());
  LWM_REQUIRE(codes_Nhw.size(1) > 0 && codes_Nhw.size(2) > 0, "VQGAN decode: frames of ",
              codes_Nhw.size(1), " x ", codes_Nhw.size(2), " codes");
  if (codes_Nhw.size(0) == 0) return;
  const at::Tensor code_Nhw = codes_Nhw.to(at::kLong);
  const auto lowest = code_Nhw.min().item<int64_t>(), highest = code_Nhw.max().item<int64_t>();
  LWM_REQUIRE(lowest >= 0 && highest < config_.num_vq_embeddings, "VQGAN decode: code ",
              lowest < 0 ? lowest : highest, " is not among the ", config_.num_vq_embeddings,
              " of this codebook; the codes belong to another VQGAN");
}

at::Tensor Vqgan::Decode(const at::Tensor& codes_Nhw) const {
  RequireCodes(codes_Nhw);
  const int64_t side = config_.Reduction();
  const auto stored = codebook_VC_.scalar_type();
  if (codes_Nhw.size(0) == 0)
    return at::empty({0, codes_Nhw.size(1) * side, codes_Nhw.size(2) * side, 3}, stored);
  const at::Tensor row_R = codes_Nhw.to(at::kLong).reshape({-1});
  return DecodeLatents(codebook_VC_.index_select(0, row_R).view(
      {codes_Nhw.size(0), codes_Nhw.size(1), codes_Nhw.size(2), config_.vq_embed_dim}));
}

at::Tensor Vqgan::DecodeLatents(const at::Tensor& latents_NhwC) const {
  LWM_REQUIRE(latents_NhwC.dim() == 4 && latents_NhwC.size(3) == config_.vq_embed_dim,
              "VQGAN decode: want latents [N,h,w,", config_.vq_embed_dim, "], got ",
              latents_NhwC.sizes());
  const at::Tensor z_NCHW =
      latents_NhwC.to(dtype_).permute({0, 3, 1, 2}).contiguous(LayoutFor(dtype_));
  at::Tensor x_NCHW = RunDecoder(Conv(weights_.post_quant_conv, z_NCHW));
  if (config_.space_to_depth > 1) x_NCHW = at::pixel_shuffle(x_NCHW, config_.space_to_depth);
  return x_NCHW.permute({0, 2, 3, 1}).to(codebook_VC_.scalar_type()).contiguous();
}

}  // namespace lwm::vision
