#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "lwm/model/weights.h"

namespace lwm::app {

// The tensor type of --dtype.
at::ScalarType ScalarTypeOf(const RunFlags& flags);

// The model of --model (a directory or one file) in the dtype of the run's flags.
model::ResidentWeights LoadModelFor(const RunFlags& flags, const std::string& path);

// One line on stderr for each setting of the model's generation_config.json that would change the
// text and that this program does not follow.
void WarnOfSettingsNotFollowed(const std::string& model);

// Throws Error(kInvalidArgument) when mpirun started several ranks for a command that uses one.
void RequireOneRank(RunContext& context, const char* command);

}  // namespace lwm::app
