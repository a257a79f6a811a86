#include "lwm/vision_train/measure.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "lwm/vision/frame_batches.h"
#include "lwm/vision/frames.h"
#include "lwm/vision/image_grid.h"
#include "lwm/vision/image_quality.h"
#include "lwm/vision_train/codebook.h"

namespace lwm::vision_train {
namespace {

at::Tensor ToUnit(const at::Tensor& images_NHWC) { return images_NHWC.add(1).mul_(0.5); }

}  // namespace

Json ToJson(const Reconstruction& result) {
  return {{"pictures", result.images},         {"psnr_db", result.psnr_db},
          {"gain_db", result.gain_db()},       {"ssim", result.ssim},
          {"box_psnr_db", result.box_psnr_db}, {"box_ssim", result.box_ssim},
          {"codes_used", result.used_share},   {"perplexity", result.perplexity}};
}

Reconstruction Measure(const vision::Vqgan& vqgan, const at::Tensor& images_NHWC) {
  c10::NoGradGuard no_grad;
  const at::Tensor code_Nhw = vision::EncodeInBatches(vqgan, images_NHWC);
  Reconstruction result;
  result.images = images_NHWC.size(0);
  result.output_NHWC = vision::DecodeInBatches(vqgan, code_Nhw).clamp_(-1, 1);
  const at::Tensor original = ToUnit(images_NHWC);
  const vision::ImageQuality quality = vision::MeanQuality(original, ToUnit(result.output_NHWC));
  const vision::ImageQuality box =
      vision::MeanQuality(original, vision::BoxAverages(original, code_Nhw.size(1)));
  const CodeUse use = MeasureUse(code_Nhw, vqgan.config().num_vq_embeddings);
  result.psnr_db = quality.psnr_db;
  result.ssim = quality.ssim;
  result.box_psnr_db = box.psnr_db;
  result.box_ssim = box.ssim;
  result.used_share = use.used_share;
  result.perplexity = use.perplexity;
  return result;
}

io::RgbImage ReconstructionGrid(const at::Tensor& images_NHWC, const at::Tensor& output_NHWC,
                                int64_t count) {
  const int64_t shown = std::min(count, images_NHWC.size(0));
  return vision::PairGrid(vision::FramesOfTensor(images_NHWC.narrow(0, 0, shown)),
                          vision::FramesOfTensor(output_NHWC.narrow(0, 0, shown)));
}

}  // namespace lwm::vision_train
