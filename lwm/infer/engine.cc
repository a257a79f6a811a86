#include "lwm/infer/engine.h"

#include <ATen/ATen.h>

#include <utility>

#include "lwm/base/error.h"
#include "lwm/checkpoint/import.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/data/prompt.h"
#include "lwm/vision/frame_batches.h"
#include "lwm/vision/frames.h"

namespace lwm::infer {
namespace {

// Refuses a text model before its weights are read.
model::ResidentWeights LoadWeights(const std::string& path, const EngineOptions& options) {
  LWM_REQUIRE(!options.images || checkpoint::OpenModel(path)->config().has_vision(), path,
              ": a text-only model (no vision_vocab_size in its config): it neither sees nor draws "
              "images; give a model of text and vision");
  return checkpoint::LoadModel(path, options.dtype);
}

std::span<const int32_t> CodesIn(const at::Tensor& codes_Fn) {
  if (!codes_Fn.defined()) return {};
  return {codes_Fn.const_data_ptr<int32_t>(), static_cast<size_t>(codes_Fn.numel())};
}

}  // namespace

Engine::Engine(const std::string& model, const EngineOptions& options)
    : weights_(LoadWeights(model, options)), decoder_(weights_.config(), weights_) {
  if (options.tokenizer) tokenizer_ = OpenTokenizerFor(config(), model);
  if (!options.images) return;
  vqgan_.emplace(checkpoint::LoadVqgan(options.vqgan.empty() ? model : options.vqgan, at::kFloat));
  layout_ = data::MakeFrameLayout(vqgan_->config(), config(), tokenizer());
}

Engine::Engine(model::ResidentWeights weights, std::shared_ptr<const data::Tokenizer> tokenizer,
               std::optional<vision::Vqgan> vqgan)
    : weights_(std::move(weights)),
      decoder_(weights_.config(), weights_),
      tokenizer_(std::move(tokenizer)),
      vqgan_(std::move(vqgan)) {
  if (vqgan_) layout_ = data::MakeFrameLayout(vqgan_->config(), config(), this->tokenizer());
}

const data::Tokenizer& Engine::tokenizer() const {
  LWM_CHECK(tokenizer_, "the engine was opened without a tokenizer");
  return *tokenizer_;
}

const vision::Vqgan& Engine::vqgan() const {
  LWM_CHECK(vqgan_, "the engine was opened without images");
  return *vqgan_;
}

const data::FrameLayout& Engine::layout() const {
  LWM_CHECK(layout_, "the engine was opened without images");
  return *layout_;
}

std::vector<GeneratedSequence> Engine::Generate(std::vector<GenerateRequest> requests,
                                                const OnToken& on_token) const {
  return infer::Generate(
      decoder_, std::move(requests),
      {.text = tokenizer_ ? tokenizer_->vocab_size() : 0, .layout = layout_ ? &*layout_ : nullptr},
      on_token);
}

at::Tensor Engine::Draw(const std::vector<std::string>& texts, const at::Tensor& first_Fn,
                        const FrameOptions& options, const OnCodes& on_codes) const {
  std::vector<data::MultimodalSequence> prompts, unconditional;
  for (const std::string& text : texts) {
    prompts.push_back(data::FramePrompt(tokenizer(), layout(), text, CodesIn(first_Fn)));
    unconditional.push_back(data::FramePrompt(tokenizer(), layout(), "", CodesIn(first_Fn)));
  }
  return GenerateFrames(decoder_, layout(), prompts, unconditional, options, on_codes);
}

at::Tensor Engine::CodesOf(const std::string& path, vision::MediaOptions media,
                           int64_t first) const {
  media.size = layout().frame_size;
  vision::MediaFrames stream({path}, media);
  int64_t frames = 0;
  const auto next = [&]() -> std::optional<io::RgbImage> {
    if (first > 0 && frames == first) return {};
    ++frames;
    return stream.Next();
  };
  return vision::EncodeStream(vqgan(), next).flatten(1).contiguous();
}

std::vector<io::RgbImage> Engine::FramesOf(const at::Tensor& codes_Fn) const {
  return vision::FramesOfTensor(vision::DecodeFrames(vqgan(), codes_Fn));
}

std::unique_ptr<data::Tokenizer> OpenTokenizerFor(const config::ModelConfig& config,
                                                  const std::string& path) {
  auto tokenizer = data::OpenTokenizer(path);
  LWM_REQUIRE(tokenizer->vocab_size() <= config.vocab_size, path, ": the tokenizer has ",
              tokenizer->vocab_size(), " tokens, the model's vocabulary ", config.vocab_size,
              "; they do not belong together");
  return tokenizer;
}

GenerateRequest TextRequest(std::span<const int32_t> prompt_ids) {
  GenerateRequest request;
  request.prompt.AddText(prompt_ids);
  return request;
}

}  // namespace lwm::infer
