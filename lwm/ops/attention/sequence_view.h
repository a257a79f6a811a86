#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lwm/dist/communicator.h"
#include "lwm/dist/sequence_plan.h"

namespace lwm::ops {

// The slots of B rows over all ranks of the sp group, for attention. All rows of a batch have the
// same S, P and T.
struct SequenceView {
  dist::Communicator* sp = nullptr;  // the ring; nullptr = one rank
  at::Tensor index_PBT;  // i32 [P,B,T] contiguous; index of each slot in its row, -1 empty
  at::Tensor begin_PBT;  // i32 [P,B,T]; first index of its segment
  // Whether all ranks use the same kernels and can read each other's packed keys.
  bool same_packed_layout = true;

  int ranks() const { return static_cast<int>(index_PBT.size(0)); }
  int rank() const { return sp ? sp->rank() : 0; }
  int64_t rows() const { return index_PBT.size(1); }
  int64_t tokens() const { return index_PBT.size(2); }  // T, slots of this rank
};

// One plan per row (all with the same S and P); sp may be nullptr when the plans have one rank.
SequenceView MakeSequenceView(const std::vector<dist::SequencePlan>& plans, dist::Communicator* sp);

// B rows of T tokens, one segment each, one rank.
SequenceView MakeCausalView(int64_t rows, int64_t tokens);

}  // namespace lwm::ops
