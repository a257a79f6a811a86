#include "lwm/vision_train/objective.h"

#include <ATen/ATen.h>

#include "lwm/vision_train/codebook.h"

namespace lwm::vision_train {

Pass RunPass(const vision::Vqgan& vqgan, const at::Tensor& codebook_VC,
             const at::Tensor& images_NHWC, bool quantise, const config::VqganLossSection& loss,
             const config::CodebookSection& options, const PerceptualTerm& perceptual) {
  Pass pass;
  const at::Tensor z_NhwC = vqgan.Latents(images_NHWC);
  pass.z_NhwC = z_NhwC.detach();
  at::Tensor latents_NhwC = z_NhwC;
  if (quantise) {
    // On the detached latents: the choice of a code has no gradient.
    pass.code_R = vqgan.Quantise(pass.z_NhwC).to(at::kLong).view({-1});
    const Quantised quantised =
        StraightThrough(z_NhwC, codebook_VC, pass.code_R, options.update == "loss");
    latents_NhwC = quantised.latents_NhwC;
    pass.commitment = quantised.commitment;
    pass.codebook = quantised.codebook;
  }
  pass.output_NHWC = vqgan.DecodeLatents(latents_NhwC);
  pass.l1 = at::l1_loss(pass.output_NHWC, images_NHWC);
  pass.mse = at::mse_loss(pass.output_NHWC, images_NHWC);
  pass.reconstruction = pass.l1 * loss.l1 + pass.mse * loss.mse;
  if (loss.perceptual > 0 && perceptual) {
    pass.perceptual = perceptual(images_NHWC, pass.output_NHWC).mean();
    pass.reconstruction = pass.reconstruction + pass.perceptual * loss.perceptual;
  }
  pass.loss = pass.reconstruction;
  if (quantise) pass.loss = pass.loss + pass.commitment * options.commitment;
  if (pass.codebook.defined()) pass.loss = pass.loss + pass.codebook;
  return pass;
}

}  // namespace lwm::vision_train
