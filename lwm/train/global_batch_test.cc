#include "lwm/train/global_batch.h"

#include <gtest/gtest.h>

#include "lwm/train/batch.h"

namespace lwm::train {
namespace {

// Row number n of a stream: n examples, n padding tokens, first token n.
class CountingRows {
 public:
  data::Row operator()() {
    data::Row row = EmptyRow(32);
    row.token_S[0] = ++count_;
    row.examples = row.padding = count_;
    return row;
  }

 private:
  int32_t count_ = 0;
};

TEST(GlobalBatchTest, TotalsAreTheSameForEveryDivisionAndRowsAreDealtInTurn) {
  for (const int data_size : {1, 2, 3, 5, 8}) {
    std::vector<int> owner(6, -1);
    for (int rank = 0; rank < data_size; ++rank) {
      const GlobalBatch batch = TakeGlobalBatch(CountingRows(), 5, rank, data_size);
      EXPECT_EQ(batch.examples, 15);
      EXPECT_TRUE(batch.has_targets);
      EXPECT_EQ(batch.tokens, 5 * 32 - 15);
      EXPECT_EQ(batch.allowed_pairs, 5 * 32);
      EXPECT_EQ(batch.rows.size(), static_cast<size_t>((5 + data_size - 1) / data_size));
      for (const auto& row : batch.rows)
        if (row.examples > 0) owner[static_cast<size_t>(row.token_S[0])] = rank;
    }
    for (int i = 0; i < 5; ++i) EXPECT_EQ(owner[static_cast<size_t>(i) + 1], i % data_size);
  }
}

TEST(GlobalBatchTest, RanksWithoutARowGetAnEmptyOneOfTheSameLength) {
  const GlobalBatch batch = TakeGlobalBatch(CountingRows(), 2, 2, 3);
  ASSERT_EQ(batch.rows.size(), 1u);
  EXPECT_EQ(batch.rows[0].token_S.size(), 32u);
  EXPECT_EQ(batch.rows[0].examples, 0);
}

TEST(GlobalBatchTest, BatchWithoutExamplesDividesByOne) {
  const GlobalBatch batch = TakeGlobalBatch([] { return EmptyRow(4); }, 2, 0, 1);
  EXPECT_EQ(batch.examples, 1);
  EXPECT_FALSE(batch.has_targets);
  EXPECT_EQ(batch.tokens, 0);
}

}  // namespace
}  // namespace lwm::train
