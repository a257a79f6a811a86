#include "lwm/config/dtype.h"

#include "lwm/base/error.h"

namespace lwm::config {

std::string NameOf(Dtype dtype) {
  if (dtype == Dtype::kF32) return "f32";
  return dtype == Dtype::kBF16 ? "bf16" : "f16";
}

Dtype ParseDtype(const std::string& name) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kF16})
    if (name == NameOf(dtype)) return dtype;
  throw Error(ErrorCode::kInvalidArgument, "unknown dtype '" + name + "': want f32, bf16 or f16");
}

void to_json(Json& json, Dtype dtype) { json = NameOf(dtype); }

}  // namespace lwm::config
