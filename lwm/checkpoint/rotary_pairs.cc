#include "lwm/checkpoint/rotary_pairs.h"

#include <ATen/ATen.h>

namespace lwm::checkpoint {

at::Tensor HalvesFromPairs(const at::Tensor& weight, int64_t heads) {
  const int64_t pairs = weight.size(0) / heads / 2;
  return weight.reshape({heads, pairs, 2, -1}).transpose(1, 2).reshape(weight.sizes());
}

at::Tensor PairsFromHalves(const at::Tensor& weight, int64_t heads) {
  const int64_t pairs = weight.size(0) / heads / 2;
  return weight.reshape({heads, 2, pairs, -1}).transpose(1, 2).reshape(weight.sizes());
}

}  // namespace lwm::checkpoint
