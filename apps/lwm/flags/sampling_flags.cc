#include "flags/sampling_flags.h"

#include <fmt/format.h>

#include <optional>

namespace lwm::app {
namespace {

template <class T>
void AddFlag(CLI::App& command, const char* name, T& value, const std::string& help) {
  const std::string otherwise = fmt::format("{} (default: the model's own, else {})", help, value);
  command.add_option(name, value, otherwise);
}

template <class T>
void Follow(const CLI::App& command, const char* flag, const std::optional<T>& advised, T& value) {
  if (advised && command.count(flag) == 0) value = *advised;
}

}  // namespace

void AddSamplingFlags(CLI::App& command, infer::SamplingOptions& sampling) {
  AddFlag(command, "--temperature", sampling.temperature, "0 = always the likeliest token");
  AddFlag(command, "--top-k", sampling.top_k, "draw from the k likeliest tokens; 0 = all");
  AddFlag(command, "--top-p", sampling.top_p,
          "nucleus sampling: smallest token set with total probability p");
}

void AddRepetitionPenaltyFlag(CLI::App& command, double& penalty) {
  AddFlag(
      command, "--repetition-penalty", penalty,
      "of tokens in the prompt or drawn before: divides positive logits and multiplies negative "
      "ones; 1 = none");
}

void AddScaleFlag(CLI::App& command, double& scale) {
  AddFlag(command, "--scale", scale,
          "guidance towards the text: 1 = none; small models that know their images by heart are "
          "best at 1, large ones at 3 to 7");
}

void FollowAdvice(const CLI::App& command, const infer::SamplingAdvice& advice,
                  infer::SamplingOptions& sampling) {
  Follow(command, "--repetition-penalty", advice.repetition_penalty, sampling.repetition_penalty);
  Follow(command, "--temperature", advice.temperature, sampling.temperature);
  Follow(command, "--top-k", advice.top_k, sampling.top_k);
  Follow(command, "--top-p", advice.top_p, sampling.top_p);
}

void FollowAdvice(const CLI::App& command, const std::string& model, infer::FrameOptions& drawing) {
  const infer::SamplingAdvice advice = infer::ReadSamplingAdvice(model).vision;
  FollowAdvice(command, advice, drawing.sampling);
  Follow(command, "--scale", advice.guidance_scale, drawing.scale);
}

}  // namespace lwm::app
