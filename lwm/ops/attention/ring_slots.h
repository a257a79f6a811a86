#pragma once

#include <cstdint>
#include <vector>

#include "lwm/ops/attention/sequence_view.h"

namespace lwm::ops {

struct SlotRange {
  int64_t first = 0, count = 0;
};

// The slot range of each rank that other ranks need: one range per rank, the same for all rows; may
// include unneeded slots. Cost: a pass over the slots of all ranks.
struct RingSlots {
  std::vector<SlotRange> keys_P;     // seen by some query of another rank
  std::vector<SlotRange> queries_P;  // that see some key of another rank
};
RingSlots FindRingSlots(const SequenceView& view);

}  // namespace lwm::ops
