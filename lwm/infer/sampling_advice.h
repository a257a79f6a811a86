#pragma once

#include <filesystem>
#include <optional>

#include "lwm/infer/sampler.h"

namespace lwm::infer {

// Sampling settings that a model's makers advise; unset where they say nothing.
struct SamplingAdvice {
  std::optional<double> repetition_penalty;  // of text; 1 = none
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> guidance_scale;  // of images and video; 1 = none
};

// For text, and for the codes of images and video.
struct ModelSamplingAdvice {
  SamplingAdvice text, vision;
};

// Reads generation_config.json of the model directory `model`. Text: Hugging Face's
// "repetition_penalty", "temperature", "top_k", "top_p" and "do_sample" (false = temperature 0).
// Vision: all but the first and "guidance_scale" in an object "vision_sampling", a key of this
// project that Hugging Face's readers pass over. No file: no advice. Throws Error(kCorruptData)
// naming the file and the key when a value has the wrong type or lies outside its domain.
ModelSamplingAdvice ReadSamplingAdvice(const std::filesystem::path& model);

}  // namespace lwm::infer
