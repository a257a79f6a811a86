#pragma once

#include <string>

#include "lwm/base/json.h"
#include "lwm/config/model_config.h"

namespace lwm::config {

// Refuses settings of a model config that change its arithmetic in a way that is not implemented:
// other activations, layers with a bias, sliding windows, partly rotated heads, soft caps of
// logits, multipliers, experts and so on. A setting with its neutral value (false, 1, null, ...),
// which changes nothing, is accepted, and so are keys that are not known to change the arithmetic.
//   json    in  a config.json, an object
//   config  in  its sizes, which decide the neutral value of some settings
// Throws Error(kCorruptData) naming `where`, the key, its value and the neutral one.
void RefuseUnsupportedSettings(const Json& json, const ModelConfig& config,
                               const std::string& where);

// The same for its rope_scaling or rope_parameters, of which every key must be known.
void RefuseUnknownRopeSettings(const Json& rope, const std::string& where);

}  // namespace lwm::config
