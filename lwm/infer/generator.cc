#include "lwm/infer/generator.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/infer/token_batch.h"

namespace lwm::infer {
namespace {

void CheckRequest(const DecodeModel& model, std::span<const int64_t> prompt_ids,
                  const GenerateOptions& options) {
  LWM_REQUIRE(!prompt_ids.empty(), "the prompt has no tokens");
  LWM_REQUIRE(options.max_new_tokens >= 0, "max-new-tokens is ", options.max_new_tokens,
              ", want >= 0");
  const auto prompt = static_cast<int64_t>(prompt_ids.size());
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, prompt <= ContextLimit(model.config()),
                 "the prompt has ", CountOf(prompt, "token"),
                 ", the model's context (max_position_embeddings) is ",
                 ContextLimit(model.config()), "; shorten the prompt");
}

// The cache commits memory as tokens come. Without this check the OS would end the process in the
// middle of an answer.
void CheckMemory(const DecodeModel& model, int64_t tokens) {
  const double needed = static_cast<double>(tokens) *
                        static_cast<double>(KvBytesPerToken(model.config(), model.dtype()));
  const auto available = static_cast<double>(AvailableMemoryBytes());
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, needed <= available, "keys and values of ", tokens,
                 " tokens (prompt and new ones) need ", FormatBytes(needed), " of memory, ",
                 FormatBytes(available), " are left; ask for fewer tokens");
}

NewTokens TextTokens(std::span<const int64_t> ids) {
  return {at::tensor(at::ArrayRef<int64_t>(ids.data(), ids.size()), at::kLong).unsqueeze(0), {}};
}

// The logits to draw from, of a batch of one row.
std::span<const float> Drawable(const at::Tensor& logits_1V, int64_t vocabulary) {
  const int64_t all = logits_1V.numel();
  // A table may be padded: rows behind the vocabulary were never trained.
  return {logits_1V.const_data_ptr<float>(),
          static_cast<size_t>(vocabulary > 0 ? std::min(all, vocabulary) : all)};
}

}  // namespace

double GenerateResult::PrefillTokensPerSecond() const {
  return prefill_seconds > 0 ? static_cast<double>(prompt_tokens) / prefill_seconds : 0;
}

double GenerateResult::DecodeTokensPerSecond() const {
  return new_ids.size() > 1 && decode_seconds > 0
             ? static_cast<double>(new_ids.size() - 1) / decode_seconds
             : 0;
}

GenerateResult Generate(const DecodeModel& model, std::span<const int64_t> prompt_ids,
                        const GenerateOptions& options, const OnToken& on_token) {
  CheckRequest(model, prompt_ids, options);
  Sampler sampler(options.sampling, options.seed);
  for (const int64_t id : prompt_ids) sampler.See(id);
  GenerateResult result;
  result.prompt_tokens = static_cast<int64_t>(prompt_ids.size());
  // The last new token is never read, so the context may be full when it is drawn.
  const int64_t room = ContextLimit(model.config()) - result.prompt_tokens;
  const int64_t wanted = room < options.max_new_tokens - 1 ? room + 1 : options.max_new_tokens;
  if (wanted == 0) return result;
  CheckMemory(model, result.prompt_tokens + wanted);
  KvCache cache(model.config(), /*rows=*/1, result.prompt_tokens + wanted, model.dtype());

  const double start = MonotonicSeconds();
  at::Tensor logits_1V = model.Read(TextTokens(prompt_ids), Head::kText, cache);
  result.prefill_seconds = MonotonicSeconds() - start;
  while (true) {
    const int64_t id = sampler.Sample(Drawable(logits_1V, options.vocabulary));
    result.new_ids.push_back(id);
    sampler.See(id);
    // The end-of-text token is reported like any other; the reason to stop is decided after it.
    const bool go_on = on_token(id);
    if (!options.ignore_eos && model.config().EndsText(id)) {
      result.stop = GenerateResult::Stop::kEndOfText;
      break;
    }
    if (!go_on || static_cast<int64_t>(result.new_ids.size()) == wanted) {
      if (go_on && wanted < options.max_new_tokens)
        result.stop = GenerateResult::Stop::kContextFull;
      break;
    }
    logits_1V = model.Read(TextTokens({&id, 1}), Head::kText, cache);
  }
  result.decode_seconds = MonotonicSeconds() - start - result.prefill_seconds;
  return result;
}

}  // namespace lwm::infer
