#pragma once

#include <cstdint>
#include <vector>

#include "lwm/config/model_config.h"

namespace lwm::config {

// The K/2 inverse frequencies for a run of `tokens` tokens (only dynamic depends on it), and the
// factor that multiplies cos and sin (yarn; otherwise 1). f64 throughout.
struct RopeFrequencies {
  std::vector<double> inverse_frequency_R;
  double attention_factor = 1;
};
RopeFrequencies ComputeRopeFrequencies(const ModelConfig& config, int64_t tokens);

}  // namespace lwm::config
