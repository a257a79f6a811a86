#pragma once

#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "lwm/eval/image_pairs.h"
#include "lwm/io/image.h"
#include "lwm/model/weights.h"
#include "lwm/vision/media_frames.h"

namespace lwm::app {

// A model directory opened for images: decoder, tokenizer and VQGAN.
class LoadedImageModel {
 public:
  // The VQGAN is `vqgan`, or the one in the model directory when that is empty; it computes in f32,
  // as in training. Throws Error(kInvalidArgument) when the parts do not belong together.
  LoadedImageModel(const std::string& model, const std::string& vqgan, at::ScalarType dtype);

  eval::ImageModel view() { return {decoder_, weights_, *tokenizer_, vqgan_, layout_}; }
  const infer::DecodeModel& decoder() const { return decoder_; }
  const data::Tokenizer& tokenizer() const { return *tokenizer_; }
  const vision::Vqgan& vqgan() const { return vqgan_; }
  const infer::FrameLayout& layout() const { return layout_; }

  // BOS, where the tokenizer has one, and the text.
  infer::MultimodalSequence TextPrompt(const std::string& text) const;

  // Codes i32 [frames, n] of the image or video at `path`: of the frames that `media` chooses
  // (its size is the model's) the first `first`; 0 = all.
  at::Tensor CodesOf(const std::string& path, vision::MediaOptions media = {},
                     int64_t first = 0) const;

  std::vector<io::RgbImage> FramesOf(const at::Tensor& codes_Fn) const;

 private:
  model::ResidentWeights weights_;
  infer::DecodeModel decoder_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
  vision::Vqgan vqgan_;
  infer::FrameLayout layout_;
};

// Flags of commands that draw frames.
struct DrawFlags {
  RunFlags run;
  std::string model, vqgan, output;
  bool chat = false;
  infer::FrameOptions options;
};
void AddDrawFlags(CLI::App& command, DrawFlags& flags);

// The text before <vision>: the prompt, or with --chat what the published chat models were trained
// on, "... USER: Generate {what} of {prompt} ASSISTANT:".
std::string DrawText(const DrawFlags& flags, const char* what, const std::string& prompt);

// New frames for texts, i32 [B, frames, n], after `first_Fn` frames (may be undefined); progress on
// stderr.
at::Tensor DrawFrames(const LoadedImageModel& model, const DrawFlags& flags,
                      const std::vector<std::string>& texts, const at::Tensor& first_Fn);

}  // namespace lwm::app
