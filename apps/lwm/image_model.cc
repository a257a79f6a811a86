#include "image_model.h"

#include <ATen/ATen.h>

#include <memory>

#include "flags/model_flags.h"
#include "flags/sampling_flags.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/format.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/checkpoint/import.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/vision/frames.h"
#include "progress.h"

namespace lwm::app {
namespace {

constexpr size_t kFramesAtOnce = 8;  // of the VQGAN

std::span<const int32_t> CodesIn(const at::Tensor& codes_Fn) {
  if (!codes_Fn.defined()) return {};
  return {codes_Fn.const_data_ptr<int32_t>(), static_cast<size_t>(codes_Fn.numel())};
}

// Prints progress of drawing to stderr.
infer::OnCodes SayProgress(size_t rows) {
  const auto progress = std::make_shared<Progress>();
  return [start = MonotonicSeconds(), rows, progress](int64_t done, int64_t all) {
    if (done < all && !progress->is_due()) return;
    const double codes = static_cast<double>(done) * static_cast<double>(rows);
    const std::string line = fmt::format(
        "drew {} of {} in {}, {:.1f} codes/s", done, CountOf(all, "code"),
        CountOf(static_cast<int64_t>(rows), "row"), codes / (MonotonicSeconds() - start));
    done < all ? progress->Show(line) : progress->Finish(line);
  };
}

// Refuses a text model before its weights are read.
model::ResidentWeights LoadVisionModel(const std::string& path, at::ScalarType dtype) {
  LWM_REQUIRE(checkpoint::OpenModel(path)->config().has_vision(), path,
              ": a text-only model (no vision_vocab_size in its config): it neither sees nor draws "
              "images; give a model of text and vision");
  return checkpoint::LoadModel(path, dtype);
}

}  // namespace

LoadedImageModel::LoadedImageModel(const std::string& model, const std::string& vqgan,
                                   at::ScalarType dtype)
    : weights_(LoadVisionModel(model, dtype)),
      decoder_(weights_.config(), weights_),
      tokenizer_(OpenTokenizerFor(weights_.config(), model)),
      vqgan_(checkpoint::LoadVqgan(vqgan.empty() ? model : vqgan, at::kFloat)),
      layout_(infer::MakeFrameLayout(vqgan_.config(), weights_.config(), *tokenizer_)) {}

infer::MultimodalSequence LoadedImageModel::TextPrompt(const std::string& text) const {
  infer::MultimodalSequence sequence;
  if (const auto bos = tokenizer_->leading_bos()) sequence.Add(*bos, false);
  sequence.AddText(tokenizer_->Encode(text));
  return sequence;
}

at::Tensor LoadedImageModel::CodesOf(const std::string& path, vision::MediaOptions media,
                                     int64_t first) const {
  media.size = layout_.frame_size;
  vision::MediaFrames stream({path}, media);
  std::vector<at::Tensor> codes;
  std::vector<io::RgbImage> waiting;
  const auto encode = [&] {
    codes.push_back(vqgan_.Encode(vision::TensorOfFrames(waiting)).flatten(1));
    waiting.clear();
  };
  int64_t frames = 0;
  while (first == 0 || frames < first) {
    auto frame = stream.Next();
    if (!frame) break;
    ++frames;
    waiting.push_back(std::move(*frame));
    if (waiting.size() == kFramesAtOnce) encode();
  }
  if (!waiting.empty()) encode();
  return at::cat(codes).contiguous();
}

std::vector<io::RgbImage> LoadedImageModel::FramesOf(const at::Tensor& codes_Fn) const {
  return vision::FramesOfTensor(eval::DecodeFrames(vqgan_, codes_Fn));
}

void AddDrawFlags(CLI::App& command, DrawFlags& flags) {
  command.add_option("-m,--model", flags.model, "model directory")->required();
  command.add_option("--vqgan", flags.vqgan, "VQGAN directory (default: vqgan in the model's)");
  AddScaleFlag(command, flags.options.scale);
  AddSamplingFlags(command, flags.options.sampling);
  command.add_flag("--chat", flags.chat,
                   "ask as the published chat models want it: USER: Generate ... ASSISTANT:");
  AddRunFlags(command, flags.run);
}

std::string DrawText(const DrawFlags& flags, const char* what, const std::string& prompt) {
  if (!flags.chat) return prompt;
  return Cat("You are a helpful assistant. USER: Generate ", what, " of ", prompt, " ASSISTANT:");
}

at::Tensor DrawFrames(const LoadedImageModel& model, const DrawFlags& flags,
                      const std::vector<std::string>& texts, const at::Tensor& first_Fn) {
  std::vector<infer::MultimodalSequence> prompts, unconditional;
  for (const std::string& text : texts) {
    prompts.push_back(model.TextPrompt(text));
    unconditional.push_back(model.TextPrompt(""));
    infer::AddOpenVideo(model.layout(), CodesIn(first_Fn), prompts.back());
    infer::AddOpenVideo(model.layout(), CodesIn(first_Fn), unconditional.back());
  }
  return infer::GenerateFrames(model.decoder(), model.layout(), prompts, unconditional,
                               flags.options, SayProgress(texts.size()));
}

}  // namespace lwm::app
