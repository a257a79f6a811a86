#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

// sum[i] += term[i]: a bf16 product joins its f32 sum in one pass, without a widened copy.
//
//   sum_N   in-out  f32 [n]
//   term_N  in      bf16 (as its bits) [n], disjoint from sum_N
//
// Cost: 10 B moved per element, memory-bound. Threads: call on disjoint ranges.
void Accumulate(float* sum_N, const uint16_t* term_N, size_t n) noexcept;

}  // namespace lwm::kernels
