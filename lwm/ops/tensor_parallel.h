#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/dist/communicator.h"

namespace lwm::ops {

// Sum of x over the ranks of the group, in f32, returned in x's dtype; x itself when the group is
// null or one rank. Collective.
at::Tensor SumOverRanks(dist::Communicator* group, const at::Tensor& x);

}  // namespace lwm::ops
