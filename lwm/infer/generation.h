#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "lwm/data/multimodal_sequence.h"
#include "lwm/infer/constraint.h"
#include "lwm/infer/decode_model.h"
#include "lwm/infer/sampler.h"

namespace lwm::infer {

// One sequence of text tokens and vision codes that is to go on: text from the text head, after
// "<vision>" codes and delimiters from the vision head, after eov text again.
struct GenerateRequest {
  data::MultimodalSequence prompt;  // at least one token; a BOS is the caller's business
  int64_t max_new_tokens = 256;     // text and vision
  SamplingOptions text, vision;     // a repetition penalty holds for text only
  uint64_t text_seed = 42, vision_seed = 42;
  bool ignore_eos = false;  // goes on after the end-of-text token
  FrameConstraint::Video video;
  // Classifier-free guidance (Ho & Salimans 2022): logits are those of the prompt without its
  // condition, plus `scale` times the difference to the prompt's. It reads the tokens that are
  // drawn for the prompt. 1 = no guidance, `unconditional` is not read.
  double scale = 1;
  data::MultimodalSequence unconditional;
  bool must_fit = false;  // all max_new_tokens or nothing: refused when the context is too short
};

// What has been drawn for a request.
struct GeneratedSequence {
  enum class Stop { kNotYet, kMaxNewTokens, kEndOfText, kContextFull, kAsked };

  data::MultimodalSequence added;  // the end-of-text token included
  Stop stop = Stop::kNotYet;
  int64_t prompt_tokens = 0;

  std::vector<int32_t> Text() const;  // the text tokens of `added`
};

// Where ids are drawn from.
struct Vocabularies {
  int64_t text = 0;                           // ids below this only (a table may be padded); 0: all
  const data::FrameLayout* layout = nullptr;  // nullptr: text only
};

// Continues a batch of sequences, one token of each in a step: the one loop that text, images,
// video, mixed answers and evaluation run on. Sequences of unequal length are padded on the left
// and do not see each other: each gets what it would get alone, to rounding. Memory: keys and
// values of all sequences, committed as tokens come.
class Generation {
 public:
  // `model` and `vocabularies.layout` must outlive it. Throws Error(kResourceExhausted) naming both
  // numbers when a prompt is longer than the context, or when the keys and values do not fit the
  // memory that is left, before any work; Error(kInvalidArgument) on an empty prompt, bad options.
  Generation(const DecodeModel& model, std::vector<GenerateRequest> requests,
             const Vocabularies& vocabularies);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Reads the prompts (the first time) or the tokens drawn last, then draws the next token of every
  // sequence that has not stopped. False, and nothing is done, when all have. Throws
  // Error(kInvalidArgument) on a prompt's id out of range.
  bool Step();
  // Ends a sequence here.
  void Stop(size_t sequence);

  const std::vector<GeneratedSequence>& sequences() const { return sequences_; }
  double prefill_seconds() const { return prefill_seconds_; }  // of the first step
  double decode_seconds() const { return decode_seconds_; }    // of all later ones

 private:
  struct Drawing;  // the samplers and the constraint of one sequence
  class PaddedRows;

  void Draw(const at::Tensor& x_RD);
  void DrawFrom(Head head, const std::vector<int64_t>& drawing, const at::Tensor& x_RD);
  at::Tensor LogitsOf(Head head, const std::vector<int64_t>& drawing, const at::Tensor& x_RD) const;
  void Add(size_t sequence, int64_t id, bool vision);

  const DecodeModel& model_;
  std::vector<GenerateRequest> requests_;
  int64_t text_vocabulary_;
  std::vector<Drawing> drawings_;
  std::vector<GeneratedSequence> sequences_;
  std::vector<int64_t> unconditional_row_;  // of each sequence in the cache; -1: none
  std::unique_ptr<PaddedRows> rows_;        // nullptr when nothing is to be drawn
  double prefill_seconds_ = 0, decode_seconds_ = 0;
};

// Called with each new token at once; false ends its sequence.
using OnToken = std::function<bool(size_t sequence, int64_t id, bool vision)>;

// Runs all requests to their ends.
std::vector<GeneratedSequence> Generate(const DecodeModel& model,
                                        std::vector<GenerateRequest> requests,
                                        const Vocabularies& vocabularies,
                                        const OnToken& on_token = {});

// A seed for each of `count` sequences from the seeds given: one for each, or one for all, of which
// sequence b then takes stream b; so it draws the same in a batch of any size, and sequence 0 the
// same as alone. None: 42. Throws Error(kInvalidArgument) on another number of seeds.
std::vector<uint64_t> SeedsOf(const std::vector<uint64_t>& seeds, size_t count);

}  // namespace lwm::infer
