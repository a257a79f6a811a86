#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "lwm/infer/decode_model.h"
#include "lwm/infer/multimodal_sequence.h"
#include "lwm/infer/sampler.h"

namespace lwm::infer {

// Many sequences at once. Rows of unequal length are padded on the left and do not see each other:
// each gets what it would get alone, to rounding. Memory: keys and values of all rows, checked
// before any work. The functions throw Error(kResourceExhausted) when a row is longer than the
// context or the memory does not suffice, Error(kInvalidArgument) on an empty prompt, an id out of
// range, bad options.

struct FrameOptions {
  int64_t frames = 1;  // new ones of every row
  double scale = 1;    // guidance: uncond + scale * (cond - uncond); 1 = none
  SamplingOptions sampling;
  std::vector<uint64_t> seeds;  // one a row, or one for all (row b then takes its stream b)
};

// Called with codes drawn so far in every row and the number there will be.
using OnCodes = std::function<void(int64_t done, int64_t all)>;

// New frames for prompts that end where a frame begins: after "<vision>" or an eof. Inside a frame
// only codes below layout.codes are drawn; the eof between frames is put there.
//   prompts        in  B sequences
//   unconditional  in  with guidance: B sequences, the prompts without their condition; each gets
//                      the codes that are drawn for its prompt, and both run in one batch of 2B
//   return i32 [B, frames, tokens_per_frame]
at::Tensor GenerateFrames(const DecodeModel& model, const FrameLayout& layout,
                          const std::vector<MultimodalSequence>& prompts,
                          const std::vector<MultimodalSequence>& unconditional,
                          const FrameOptions& options, const OnCodes& on_codes = {});

struct MixedOptions {
  int64_t max_new_tokens = 256;  // of each row, text and vision
  SamplingOptions text, vision;  // a repetition penalty holds for text only
  std::vector<uint64_t> seeds;   // as in FrameOptions
  bool ignore_eos = false;
  int64_t vocabulary = 0;  // draw text ids below this only; 0 = all
  int64_t max_frames = 0;  // of a video that the model writes; 0 = it decides
};

// Continues sequences of text and videos: text from the text head, after "<vision>" codes and
// delimiters from the vision head, after eov text again, until the end-of-text token, or until the
// longest row fills the context.
//   return  the new tokens of each row, the end-of-text token included
std::vector<MultimodalSequence> GenerateMixed(const DecodeModel& model, const FrameLayout& layout,
                                              const std::vector<MultimodalSequence>& prompts,
                                              const MixedOptions& options);

}  // namespace lwm::infer
