#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "lwm/infer/generation.h"

namespace lwm::infer {

struct FrameOptions {
  int64_t frames = 1;  // new ones of every prompt
  double scale = 1;    // guidance, see GenerateRequest
  SamplingOptions sampling = {};
  std::vector<uint64_t> seeds = {};  // see SeedsOf
};

// Called with codes drawn so far of every prompt and the number there will be.
using OnCodes = std::function<void(int64_t done, int64_t all)>;

// New frames for B prompts that end where a frame begins: after "<vision>" or an eof. Inside a
// frame only codes below layout.codes are drawn; the eof between frames is put there.
//   unconditional  in  with guidance: the prompts without their condition
//   return i32 [B, frames, tokens_per_frame]
// Throws as Generation's constructor does; frames that do not fit the context are refused.
at::Tensor GenerateFrames(const DecodeModel& model, const data::FrameLayout& layout,
                          const std::vector<data::MultimodalSequence>& prompts,
                          const std::vector<data::MultimodalSequence>& unconditional,
                          const FrameOptions& options, const OnCodes& on_codes = {});

// The codes of the whole frames in a sequence, one after the other; delimiters and a last frame
// that was cut short are left out.
std::vector<int32_t> FrameCodes(const data::MultimodalSequence& sequence,
                                const data::FrameLayout& layout);

}  // namespace lwm::infer
