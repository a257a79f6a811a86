#include "lwm/infer/frames.h"

#include <ATen/ATen.h>

#include <utility>

#include "lwm/base/error.h"

namespace lwm::infer {
namespace {

void RequireFrameBegin(const data::FrameLayout& layout, const data::MultimodalSequence& prompt) {
  FrameConstraint constraint(&layout, {});
  for (size_t i = 0; i < prompt.id_n.size(); ++i)
    constraint.Read(prompt.id_n[i], prompt.vision_n[i] != 0);
  LWM_REQUIRE(constraint.at_frame_begin(),
              "the prompt of a frame must end with <vision> or a whole frame");
}

std::vector<GenerateRequest> MakeRequests(
    const data::FrameLayout& layout, const std::vector<data::MultimodalSequence>& prompts,
    const std::vector<data::MultimodalSequence>& unconditional, const FrameOptions& options) {
  LWM_REQUIRE(options.frames >= 1, "frames is ", options.frames, ", want at least 1");
  LWM_REQUIRE(options.scale == 1 || unconditional.size() == prompts.size(),
              "guidance wants an unconditional sequence for each of ", prompts.size(),
              " prompts, got ", unconditional.size());
  const std::vector<uint64_t> seeds = SeedsOf(options.seeds, prompts.size());
  std::vector<GenerateRequest> requests;
  for (size_t b = 0; b < prompts.size(); ++b) {
    GenerateRequest request;
    request.prompt = prompts[b];
    // Frames with a delimiter between each two.
    request.max_new_tokens = options.frames * (layout.tokens_per_frame + 1) - 1;
    request.must_fit = true;
    request.vision = options.sampling;
    request.vision_seed = seeds[b];
    request.video.endless = true;
    request.scale = options.scale;
    RequireFrameBegin(layout, request.prompt);
    if (options.scale != 1) {
      request.unconditional = unconditional[b];
      RequireFrameBegin(layout, request.unconditional);
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace

at::Tensor GenerateFrames(const DecodeModel& model, const data::FrameLayout& layout,
                          const std::vector<data::MultimodalSequence>& prompts,
                          const std::vector<data::MultimodalSequence>& unconditional,
                          const FrameOptions& options, const OnCodes& on_codes) {
  const int64_t per_frame = layout.tokens_per_frame;
  int64_t codes = 0;
  const auto count_codes = [&](size_t sequence, int64_t id, bool) {
    // All sequences grow together.
    if (sequence == 0 && id < layout.codes) on_codes(++codes, options.frames * per_frame);
    return true;
  };
  const auto drawn = Generate(model, MakeRequests(layout, prompts, unconditional, options),
                              {.layout = &layout}, on_codes ? OnToken(count_codes) : OnToken());
  const at::Tensor codes_BFn =
      at::empty({static_cast<int64_t>(prompts.size()), options.frames, per_frame}, at::kInt);
  for (size_t b = 0; b < drawn.size(); ++b) {
    const std::vector<int32_t> of_row = FrameCodes(drawn[b].added, layout);
    LWM_CHECK(static_cast<int64_t>(of_row.size()) == options.frames * per_frame, of_row.size(),
              " codes drawn");
    codes_BFn[static_cast<int64_t>(b)].copy_(
        at::tensor(of_row, at::kInt).view({options.frames, per_frame}));
  }
  return codes_BFn;
}

std::vector<int32_t> FrameCodes(const data::MultimodalSequence& sequence,
                                const data::FrameLayout& layout) {
  std::vector<int32_t> codes;
  for (size_t i = 0; i < sequence.id_n.size(); ++i)
    if (sequence.vision_n[i] != 0 && sequence.id_n[i] < layout.codes)
      codes.push_back(static_cast<int32_t>(sequence.id_n[i]));
  const auto per_frame = static_cast<size_t>(layout.tokens_per_frame);
  codes.resize(codes.size() / per_frame * per_frame);
  return codes;
}

}  // namespace lwm::infer
