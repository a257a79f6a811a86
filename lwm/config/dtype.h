#pragma once

#include <string>

#include "lwm/base/json.h"

namespace lwm::config {

// The dtypes that recipes and flags name: "f32", "bf16", "f16".
enum class Dtype { kF32, kBF16, kF16 };

std::string NameOf(Dtype dtype);

// Throws Error(kInvalidArgument) on another name.
Dtype ParseDtype(const std::string& name);

// As its name.
void to_json(Json& json, Dtype dtype);

}  // namespace lwm::config
