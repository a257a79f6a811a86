#pragma once

#include <vector>

#include "lwm/data/row.h"
#include "lwm/dist/communicator.h"
#include "lwm/model/decoder.h"

namespace lwm::train {

// One rank's part of a micro-batch of B rows: its T slots of every row. Empty slots have id
// 0, position 0, no target and weight 0.
struct Batch {
  model::DecoderInput input;
  model::DecoderTargets targets;
};

// Divides the rows over the ranks of `sp` (zigzag; balanced by allowed area when a row has several
// segments) and takes this rank's part. All rows must have the same length. Collective over sp;
// every rank of it must pass the same rows.
Batch MakeBatch(const std::vector<const data::Row*>& rows, dist::Communicator& sp);

// A row that costs next to nothing and adds nothing: every token is padding and sees only itself.
// For ranks that would otherwise have fewer rows than others.
data::Row EmptyRow(int64_t tokens);

// Query-key pairs that attention computes for the row: sum of index - begin + 1 over its tokens.
double AllowedPairs(const data::Row& row);

}  // namespace lwm::train
