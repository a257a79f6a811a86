#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "lwm/infer/frames.h"
#include "lwm/infer/sampler.h"
#include "lwm/infer/sampling_advice.h"

namespace lwm::app {

// Adds --temperature, --top-k and --top-p. Defaults: the model's advice (FollowAdvice), else the
// values that `sampling` holds now.
void AddSamplingFlags(CLI::App& command, infer::SamplingOptions& sampling);

// The same for --repetition-penalty, of text.
void AddRepetitionPenaltyFlag(CLI::App& command, double& penalty);

// The same for --scale, the guidance of images and video.
void AddScaleFlag(CLI::App& command, double& scale);

// Follows `advice` for the flags of `command` that were not given.
void FollowAdvice(const CLI::App& command, const infer::SamplingAdvice& advice,
                  infer::SamplingOptions& sampling);

// As above for drawing, with the advice for vision of the model directory `model`.
void FollowAdvice(const CLI::App& command, const std::string& model, infer::FrameOptions& drawing);

}  // namespace lwm::app
