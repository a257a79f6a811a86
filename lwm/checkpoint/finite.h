#pragma once

#include <ATen/core/Tensor.h>

namespace lwm::checkpoint {

// True when no element is NaN or infinite. Contiguous CPU tensor of any float type, or of integers
// (always true). Cost: memory speed on all threads.
bool AllFinite(const at::Tensor& tensor);

}  // namespace lwm::checkpoint
