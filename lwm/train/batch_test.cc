#include "lwm/train/batch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>

#include "lwm/base/error.h"

namespace lwm::train {
namespace {

// Only who and how many, on machines that are alike: ranks make their batches without more talk.
class Place final : public dist::Communicator {
 public:
  Place(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool same_instructions() const override { return true; }
  dist::Request StartSend(std::span<const std::byte>, int, int) override { return Talk(); }
  dist::Request StartReceive(std::span<std::byte>, int, int) override { return Talk(); }
  dist::Request StartAllGather(std::span<const std::byte>, std::span<std::byte>) override {
    return Talk();
  }
  dist::Request StartReduceScatterSum(std::span<const float>, std::span<float>) override {
    return Talk();
  }
  void AllReduceSum(std::span<float>) override { Talk(); }
  void AllReduceSum(std::span<double>) override { Talk(); }
  void AllReduceMax(std::span<double>) override {}
  void Broadcast(std::span<std::byte>, int) override { Talk(); }
  void Barrier() override { Talk(); }
  std::unique_ptr<Communicator> Split(int) override {
    Talk();
    return nullptr;
  }

 private:
  static dist::Request Talk() { throw Error(ErrorCode::kInternal, "a batch must be made alone"); }
  int rank_, size_;
};

// Segments of the given lengths; token i has id 100 + i, target 101 + i, weight i / 8.
data::Row MakeRow(const std::vector<int>& lengths, int padding) {
  data::Row row;
  int32_t index = 0;
  for (const int length : lengths) {
    const int32_t begin = index;
    for (int i = 0; i < length; ++i, ++index) {
      row.token_S.push_back(100 + index);
      row.vision_S.push_back(0);
      row.target_S.push_back(i + 1 < length ? 101 + index : kNoTarget);
      row.target_vision_S.push_back(0);
      row.weight_S.push_back(static_cast<float>(index) / 8);
      row.position_S.push_back(i);
      row.begin_S.push_back(begin);
    }
  }
  row.examples = static_cast<int64_t>(lengths.size());
  row.padding = padding;
  return row;
}

// Every token of every row is on exactly one rank, with all that belongs to it.
void ExpectCoversRows(const std::vector<data::Row>& rows, int ranks) {
  std::vector<const data::Row*> pointers;
  for (const auto& row : rows) pointers.push_back(&row);
  std::vector<std::multiset<int32_t>> seen(rows.size());
  for (int rank = 0; rank < ranks; ++rank) {
    Place sp(rank, ranks);
    const Batch batch = MakeBatch(pointers, sp);
    const at::Tensor index_BT = batch.input.view.index_PBT[rank];
    for (int64_t b = 0; b < index_BT.size(0); ++b)
      for (int64_t t = 0; t < index_BT.size(1); ++t) {
        const auto at = [&](const at::Tensor& x_BT) { return x_BT[b][t].item().toDouble(); };
        const int32_t i = index_BT[b][t].item().toInt();
        const data::Row& row = rows[static_cast<size_t>(b)];
        if (i < 0) {
          EXPECT_EQ(at(batch.input.id_BT), 0);
          EXPECT_EQ(at(batch.targets.id_BT), kNoTarget);
          EXPECT_EQ(at(batch.targets.weight_BT), 0);
          continue;
        }
        const auto s = static_cast<size_t>(i);
        seen[static_cast<size_t>(b)].insert(i);
        EXPECT_EQ(at(batch.input.id_BT), row.token_S[s]);
        EXPECT_EQ(at(batch.input.position_BT), row.position_S[s]);
        EXPECT_EQ(at(batch.targets.id_BT), row.target_S[s]);
        EXPECT_EQ(at(batch.targets.weight_BT), row.weight_S[s]);
        EXPECT_EQ(batch.input.view.begin_PBT[rank][b][t].item().toInt(), row.begin_S[s]);
      }
  }
  for (size_t b = 0; b < rows.size(); ++b) {
    EXPECT_EQ(seen[b].size(), rows[b].token_S.size());
    EXPECT_EQ(std::set<int32_t>(seen[b].begin(), seen[b].end()).size(), seen[b].size());
  }
}

TEST(BatchTest, EveryTokenIsOnExactlyOneRank) {
  for (const int ranks : {1, 2, 3, 4}) {
    ExpectCoversRows({MakeRow({37}, 0)}, ranks);
    ExpectCoversRows({MakeRow({37}, 0), MakeRow({30, 7}, 7)}, ranks);
    ExpectCoversRows({MakeRow({5, 9, 1, 22}, 0), MakeRow({37}, 0)}, ranks);
  }
}

TEST(BatchTest, TextRowsHaveNoVisionFlagsAndVisionRowsDo) {
  data::Row row = MakeRow({8}, 0);
  Place alone(0, 1);
  EXPECT_FALSE(MakeBatch({&row}, alone).input.vision_BT.defined());
  EXPECT_FALSE(MakeBatch({&row}, alone).targets.vision_BT.defined());
  row.vision_S[3] = row.target_vision_S[2] = 1;
  const Batch batch = MakeBatch({&row}, alone);
  EXPECT_EQ(batch.input.vision_BT.sum().item().toInt(), 1);
  EXPECT_TRUE(batch.input.vision_BT[0][3].item().toBool());
  EXPECT_TRUE(batch.targets.vision_BT[0][2].item().toBool());
}

TEST(BatchTest, EmptyRowHasNoTargetsAndSeesOnlyItself) {
  const data::Row row = EmptyRow(16);
  EXPECT_EQ(AllowedPairs(row), 16);
  EXPECT_EQ(row.examples, 0);
  Place alone(0, 1);
  const Batch batch = MakeBatch({&row}, alone);
  EXPECT_TRUE((batch.targets.id_BT == kNoTarget).all().item().toBool());
}

TEST(BatchTest, AllowedPairsCountsTrianglesPerSegment) {
  EXPECT_EQ(AllowedPairs(MakeRow({4}, 0)), 10);
  EXPECT_EQ(AllowedPairs(MakeRow({3, 2}, 0)), 9);
}

}  // namespace
}  // namespace lwm::train
