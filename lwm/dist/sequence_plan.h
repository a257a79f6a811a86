#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lwm::dist {

// How the tokens of one row of S tokens are divided over P ranks. Every rank holds the same number
// of slots T = tokens_per_rank; slot t of rank p holds token index[p * T + t] of the row, or
// nothing (-1) where the division does not come out even. Slots of one rank are in rising token
// order, empty slots last.
//
// The rule of attention: a query at index g whose segment begins at b sees the keys with index in
// [b, g]. An empty slot has index -1 and begin 0, an empty interval, and is seen by nobody.
struct SequencePlan {
  int ranks = 1;
  int64_t row_tokens = 0;       // S
  int64_t tokens_per_rank = 0;  // T
  std::vector<int32_t> index_PT;
  std::vector<int32_t> begin_PT;
  std::span<const int32_t> index(int rank) const;
  std::span<const int32_t> begin(int rank) const;
};

// Zigzag: 2P chunks whose lengths differ by at most one, rank r owns chunks r and 2P-1-r, so that
// causal work is equal at every hop. begin_S[i] = index of the first token of i's segment, S
// entries; empty = one segment. Throws Error(kInvalidArgument) unless 1 <= S < 2^31.
SequencePlan PlanZigzag(int64_t row_tokens, int ranks, std::span<const int32_t> begin_S);

// For packed rows: small chunks, heaviest (by allowed area) first to the least loaded rank that
// still has room. Short segments are one chunk, which spares attention the traffic, where that
// comes out even. T = ceil(S / P); area mean / max >= 0.99 from 128 tokens per rank on. Same
// arguments and result as PlanZigzag; which one is used must not change any result beyond f32
// rounding.
SequencePlan PlanBalanced(int64_t row_tokens, int ranks, std::span<const int32_t> begin_S);

// Allowed query-key pairs that each rank's queries own, P entries; the quality of a plan is
// mean / max.
std::vector<int64_t> AllowedAreaPerRank(const SequencePlan& plan);

}  // namespace lwm::dist
