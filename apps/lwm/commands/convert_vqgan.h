#pragma once

#include <optional>
#include <string>

#include "lwm/config/dtype.h"

namespace lwm::app {

struct VqganConversion {
  std::string from, to;
  std::string format;  // "hf" and "diffusers": a VQModel directory; "lwm-jax": the pickle
  std::optional<config::Dtype> dtype;  // as stored if not given
  std::optional<std::string> config;
  std::string for_models_only = {};  // a flag that was given and a VQGAN cannot follow
};

// Converts `from` if it holds a VQGAN; false, with nothing done, if it holds something else.
// Throws Error(kInvalidArgument) for a format that cannot hold a VQGAN and for for_models_only.
bool ConvertIfVqgan(const VqganConversion& conversion);

}  // namespace lwm::app
