// lwm logits: a file of tokens in, a file of logits, losses and gradients out. Made for comparing
// with other programs; the one place where the logits of all tokens exist, as its result.

#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <string>

#include "command.h"
#include "commands.h"
#include "flags/model_flags.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/process.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/infer/token_batch.h"
#include "lwm/model/decoder.h"
#include "lwm/ops/linear.h"

namespace lwm::app {
namespace {

constexpr int64_t kSliceTokens = 1024;

struct LogitsFlags {
  RunFlags run;
  std::string model, input, output;
  bool gradients = false;
};

void CheckFits(const infer::TokenBatch& batch, const config::ModelConfig& config) {
  const double bytes = 4.0 * static_cast<double>(batch.rows() * batch.tokens()) *
                       static_cast<double>(config.vocab_size + config.vision_vocab_size);
  RequireMemory(bytes, Cat("the logits of ", batch.rows(), " x ", batch.tokens(), " tokens"),
                "give fewer tokens, or use lwm score");
}

// f32 [B,T,V], made slice by slice so that nothing else of that size exists.
at::Tensor AllLogits(const at::Tensor& hidden_BTD, const ops::LinearWeight& head_VD) {
  const int64_t rows = hidden_BTD.size(0), tokens = hidden_BTD.size(1);
  const at::Tensor hidden_TD = hidden_BTD.reshape({rows * tokens, -1}).to(head_VD.dtype());
  at::Tensor logits_TV = at::empty({rows * tokens, head_VD.rows()}, at::kFloat);
  for (int64_t begin = 0; begin < rows * tokens; begin += kSliceTokens) {
    const int64_t end = std::min(rows * tokens, begin + kSliceTokens);
    logits_TV.slice(0, begin, end).copy_(ops::Linear(hidden_TD.slice(0, begin, end), head_VD));
  }
  return logits_TV.view({rows, tokens, -1});
}

at::Tensor Scalar(double value) { return at::full({1}, value, at::kFloat); }

void AddLoss(const infer::TokenBatch& batch, const model::DecoderInput& input,
             model::ResidentWeights& weights, bool gradients, checkpoint::NamedTensors& out) {
  const config::ModelConfig& config = weights.config();
  const model::DecoderTargets targets = infer::DecoderTargetsOf(batch, input);
  // The published loss of the large world model: both modalities count the same.
  const double scale = config.has_vision() ? 0.5 : 1;
  if (gradients) weights.EnableGradients();
  const model::DecoderLoss loss =
      gradients ? model::DecoderForwardBackward(config, weights, input, targets, scale, scale, {})
                : model::DecoderForward(config, weights, input, targets, {});
  out.emplace_back("text_loss", Scalar(loss.text_loss));
  out.emplace_back("vision_loss", Scalar(loss.vision_loss));
  out.emplace_back("loss", Scalar(scale * (loss.text_loss + loss.vision_loss)));
  if (!gradients) return;
  weights.Visit([&](const model::TensorSpec& spec, at::Tensor&, at::Tensor& gradient) {
    out.emplace_back("grad." + spec.name, gradient);
  });
}

void RunLogits(const LogitsFlags& flags) {
  RunContext context(flags.run);
  RequireOneRank(context, "logits");
  RequireWritableFolder(std::filesystem::path(flags.output).parent_path());
  model::ResidentWeights weights = LoadModelFor(flags.run, flags.model);
  const infer::TokenBatch batch = infer::ReadTokenBatch(flags.input, weights.config());
  LWM_REQUIRE(!flags.gradients || batch.target_BT.defined(),
              "--gradients needs a tensor 'labels' in ", flags.input);
  CheckFits(batch, weights.config());
  const model::DecoderInput input = infer::DecoderInputOf(batch, /*sp=*/nullptr);

  checkpoint::NamedTensors out;
  const at::Tensor hidden_BTD = model::DecoderHidden(weights.config(), weights, input, {});
  const model::NonLayerWeights& outer = weights.NonLayer();
  out.emplace_back("logits", AllLogits(hidden_BTD, outer.head_VD));
  if (weights.config().has_vision())
    out.emplace_back("vision_logits", AllLogits(hidden_BTD, outer.vision_head_VD));
  if (batch.target_BT.defined()) AddLoss(batch, input, weights, flags.gradients, out);
  checkpoint::SaveTensors(flags.output, out);
}

}  // namespace

void AddLogits(CLI::App& command) {
  auto flags = std::make_shared<LogitsFlags>();
  command.add_option("-m,--model", flags->model, "model directory")->required();
  command
      .add_option("-i,--input", flags->input,
                  "safetensors: input_ids [B,T] and, optional, vision_mask, labels (-100 = none), "
                  "label_vision_mask, loss_weights, segment_ids")
      ->required();
  command
      .add_option("-o,--output", flags->output,
                  "safetensors: logits [B,T,V], vision_logits, text_loss, vision_loss, loss, "
                  "grad.NAME")
      ->required();
  command.add_flag("--gradients", flags->gradients, "also the gradient of the loss, per weight");
  AddRunFlags(command, flags->run);
  AddExamples(command,
              "  lwm logits --model DIR --input tokens.safetensors --output logits.safetensors "
              "--dtype f32\n"
              "  lwm logits --model DIR --input labelled.safetensors --output out.safetensors "
              "--gradients");
  command.callback([flags] { RunLogits(*flags); });
}

}  // namespace lwm::app
