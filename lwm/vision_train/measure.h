#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/base/json.h"
#include "lwm/io/image.h"
#include "lwm/vision/vqgan.h"

namespace lwm::vision_train {

// How well a VQGAN gives images back. PSNR and SSIM are means over images of RGB in [0, 1],
// reconstructions clipped to it but not rounded to bytes.
struct Reconstruction {
  int64_t images = 0;
  double psnr_db = 0, ssim = 0;
  double box_psnr_db = 0, box_ssim = 0;  // of averages over as many boxes as codes: the baseline
  double used_share = 0, perplexity = 0;
  at::Tensor output_NHWC;  // [-1, 1], clipped

  double gain_db() const { return psnr_db - box_psnr_db; }
};
Json ToJson(const Reconstruction& result);

// Images [N,H,W,3] in [-1,1], N >= 1, through codes and back, 16 at a time.
Reconstruction Measure(const vision::Vqgan& vqgan, const at::Tensor& images_NHWC);

// The first `count` originals over their reconstructions.
io::RgbImage ReconstructionGrid(const at::Tensor& images_NHWC, const at::Tensor& output_NHWC,
                                int64_t count);

}  // namespace lwm::vision_train
