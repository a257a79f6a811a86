#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lwm/data/multimodal_sequence.h"
#include "lwm/data/tokenizer.h"
#include "lwm/infer/frames.h"
#include "lwm/infer/generation.h"
#include "lwm/io/image.h"
#include "lwm/model/weights.h"
#include "lwm/vision/media_frames.h"
#include "lwm/vision/vqgan.h"

namespace lwm::infer {

struct EngineOptions {
  at::ScalarType dtype = at::kBFloat16;  // of weights and their products
  bool tokenizer = true;                 // else token ids only
  bool images = false;                   // opens the VQGAN too; the model must know vision
  std::string vqgan = {};                // its directory; empty: the model's own
};

// A loaded model: everything that generates and evaluates starts here. Thread-safe once made.
class Engine {
 public:
  // A model directory or one file. The VQGAN computes in f32, as in training. Throws
  // Error(kInvalidArgument) when the parts do not belong together: a text model asked for images
  // (before its weights are read), a tokenizer of more tokens than the vocabulary, codes that the
  // vocabulary has no room for.
  Engine(const std::string& model, const EngineOptions& options);
  // From parts. `tokenizer` and `vqgan` may be absent.
  Engine(model::ResidentWeights weights, std::shared_ptr<const data::Tokenizer> tokenizer,
         std::optional<vision::Vqgan> vqgan);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const config::ModelConfig& config() const { return decoder_.config(); }
  const DecodeModel& decoder() const { return decoder_; }
  // The decoder's, for passes over whole rows (DecoderForward).
  const model::WeightReader& weights() const { return weights_; }
  const data::Tokenizer& tokenizer() const;  // must have been opened
  const vision::Vqgan& vqgan() const;        // the same
  const data::FrameLayout& layout() const;   // the same

  // Continues sequences of text and, with images, of video; text ids are those that the tokenizer
  // knows.
  std::vector<GeneratedSequence> Generate(std::vector<GenerateRequest> requests,
                                          const OnToken& on_token = {}) const;

  // Frames that follow texts, i32 [B, frames, n]: the prompts of data::FramePrompt, each with the
  // frames of first_Fn (may be undefined), guided by the same without text.
  at::Tensor Draw(const std::vector<std::string>& texts, const at::Tensor& first_Fn,
                  const FrameOptions& options, const OnCodes& on_codes = {}) const;

  // Codes i32 [frames, n] of an image or video: of the frames that `media` chooses (its size is the
  // model's) the first `first`; 0 = all. Holds two batches of frames in memory.
  at::Tensor CodesOf(const std::string& path, vision::MediaOptions media = {},
                     int64_t first = 0) const;
  // Images of codes i32 [frames, n].
  std::vector<io::RgbImage> FramesOf(const at::Tensor& codes_Fn) const;

 private:
  model::ResidentWeights weights_;
  DecodeModel decoder_;
  std::shared_ptr<const data::Tokenizer> tokenizer_;
  std::optional<vision::Vqgan> vqgan_;
  std::optional<data::FrameLayout> layout_;
};

// The tokenizer beside a model. Throws Error(kInvalidArgument) naming both numbers when it has more
// tokens than the model's vocabulary.
std::unique_ptr<data::Tokenizer> OpenTokenizerFor(const config::ModelConfig& config,
                                                  const std::string& path);

// A request to continue text ids.
GenerateRequest TextRequest(std::span<const int32_t> prompt_ids);

}  // namespace lwm::infer
