#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::checkpoint {

// Rows of a query or key projection [heads * K, in]. Hugging Face pairs rows (i, i + K/2) of a
// head; LWM, GGUF and llama2.c pair rows (2i, 2i + 1). Both return a copy.
at::Tensor HalvesFromPairs(const at::Tensor& weight, int64_t heads);
at::Tensor PairsFromHalves(const at::Tensor& weight, int64_t heads);

}  // namespace lwm::checkpoint
