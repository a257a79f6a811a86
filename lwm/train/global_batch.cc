#include "lwm/train/global_batch.h"

#include <algorithm>
#include <utility>

#include "lwm/train/batch.h"

namespace lwm::train {

GlobalBatch TakeGlobalBatch(const std::function<data::Row()>& next, int64_t rows, int data_rank,
                            int data_size) {
  GlobalBatch batch;
  int64_t row_tokens = 0;
  for (int64_t i = 0; i < rows; ++i) {
    data::Row row = next();
    row_tokens = static_cast<int64_t>(row.token_S.size());
    batch.examples += row.examples;
    batch.tokens += row_tokens - row.padding;
    batch.allowed_pairs += AllowedPairs(row);
    if (i % data_size == data_rank) batch.rows.push_back(std::move(row));
  }
  // Every rank reads every row and keeps its own: totals of the whole batch need no communication.
  batch.has_targets = batch.examples > 0;
  batch.examples = std::max<int64_t>(batch.examples, 1);
  const int64_t share = (rows + data_size - 1) / data_size;
  while (static_cast<int64_t>(batch.rows.size()) < share)
    batch.rows.push_back(EmptyRow(row_tokens));
  return batch;
}

}  // namespace lwm::train
