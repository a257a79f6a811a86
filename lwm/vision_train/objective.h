#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "lwm/config/vqgan_train_config.h"
#include "lwm/vision/vqgan.h"

namespace lwm::vision_train {

// The perceptual distance of two sets of images [N,H,W,3], [N], differentiable in the second.
using PerceptualTerm =
    std::function<at::Tensor(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC)>;

// One pass of images through the model and its losses. Means are over the images given, so
// parts of a batch weigh by their number of images.
struct Pass {
  at::Tensor output_NHWC;
  at::Tensor z_NhwC;                            // latents, cut from the graph
  at::Tensor code_R;                            // their codes, i64; undefined without quantising
  at::Tensor l1, mse;                           // of pixels in [-1, 1]
  at::Tensor commitment, codebook, perceptual;  // undefined when they are no part of the loss
  // l1 * |x - y| + mse * |x - y|^2 + perceptual * distance, means over elements.
  at::Tensor reconstruction;
  // reconstruction + commitment * |z - e|^2 (+ |e - z|^2 when the codebook learns by loss).
  at::Tensor loss;
};

// `quantise` = false lets the latents through, as in the warm-up. `codebook_VC` is the one inside
// `vqgan`, as the leaf that gets gradients when options.update is "loss". Differentiable in the
// weights from which `vqgan` was made. Throws Error(kInvalidArgument) as Vqgan does.
Pass RunPass(const vision::Vqgan& vqgan, const at::Tensor& codebook_VC,
             const at::Tensor& images_NHWC, bool quantise, const config::VqganLossSection& loss,
             const config::CodebookSection& options, const PerceptualTerm& perceptual);

}  // namespace lwm::vision_train
