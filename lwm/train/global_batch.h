#pragma once

#include <functional>
#include <vector>

#include "lwm/data/row.h"

namespace lwm::train {

// One rank's share of a batch that all ranks make together, and totals of the whole batch: every
// rank reads the same stream of rows, so the losses' divisor needs no communication before
// backward.
struct GlobalBatch {
  std::vector<data::Row> rows;  // this data rank's, as many on every data rank
  int64_t examples = 0;         // of the whole batch; at least 1
  int64_t tokens = 0;           // of the whole batch, without padding
  double allowed_pairs = 0;     // of the whole batch
  bool has_targets = false;     // the whole batch has a token to learn
};

// Takes `rows` rows from the stream. Row i goes to data rank i % data_size, so the batch is the
// same whatever data_size is; where rows do not come out even, ranks get an empty row in addition.
GlobalBatch TakeGlobalBatch(const std::function<data::Row()>& next, int64_t rows, int data_rank,
                            int data_size);

}  // namespace lwm::train
