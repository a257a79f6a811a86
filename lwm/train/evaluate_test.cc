#include "lwm/train/evaluate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/data/packing.h"
#include "lwm/testing/tiny_sharded_model.h"
#include "lwm/train/batch.h"

namespace lwm::train {
namespace {

constexpr int64_t kRowTokens = 2100;

// Documents of these lengths in one row, padding behind them.
data::Row RowOf(const std::vector<int32_t>& lengths) {
  data::PackingConfig config;
  config.row_tokens = kRowTokens;
  data::Packer packer(config);
  for (const int32_t length : lengths) {
    data::Example example;
    for (int32_t i = 0; i < length; ++i) example.token_n.push_back((i * i + length) % 11);
    example.vision_n.assign(example.token_n.size(), 0);
    example.loss_weight_n.assign(example.token_n.size(), 1);
    packer.Add(std::move(example));
  }
  return *packer.Flush();
}

class Rows : public data::RowSequence {
 public:
  explicit Rows(std::vector<data::Row> rows) : rows_(std::move(rows)) {}
  std::optional<data::Row> Next() override {
    if (next_ == rows_.size()) return std::nullopt;
    return rows_[next_++];
  }

 private:
  std::vector<data::Row> rows_;
  size_t next_ = 0;
};

class EvaluateTest : public ::testing::Test {
 protected:
  EvaluateTest() { weights_.InitRandom({.seed = 3, .table_std = 1, .matrix_std = 1}); }

  // -log p and positions of all targets of a row, f64 and i32.
  std::pair<at::Tensor, at::Tensor> Targets(const data::Row& row) {
    const Batch batch = MakeBatch({&row}, mesh_.sp());
    const at::Tensor nll_BT =
        model::DecoderForward(weights_.config(), weights_, batch.input, batch.targets, {}).nll_BT;
    const at::Tensor wanted_BT = batch.targets.id_BT.ne(kNoTarget);
    return {nll_BT.masked_select(wanted_BT).to(at::kDouble),
            batch.input.position_BT.masked_select(wanted_BT)};
  }

  Evaluation Run(const std::vector<data::Row>& rows, int64_t max_rows) {
    Rows sequence(rows);
    return Evaluate(weights_, sequence, max_rows, {});
  }

  std::unique_ptr<dist::Communicator> self_ = dist::MakeSelfCommunicator();
  dist::Mesh mesh_{*self_, {}};
  ShardedWeights weights_{testing::TinyModel(1, false), mesh_, at::kFloat};
  const std::vector<data::Row> rows_ = {RowOf({2100}), RowOf({1500, 300}), RowOf({9, 8, 7})};
};

TEST_F(EvaluateTest, LossByPositionIsThatOfTheDocumentsPositions) {
  std::vector<at::Tensor> nll, position;
  for (const data::Row& row : rows_) {
    const auto [nll_N, position_N] = Targets(row);
    nll.push_back(nll_N);
    position.push_back(position_N);
  }
  const at::Tensor nll_N = at::cat(nll), position_N = at::cat(position);
  const Evaluation all = Run(rows_, 10);
  EXPECT_EQ(all.tokens, 2099 + 1499 + 299 + 8 + 7 + 6);
  EXPECT_NEAR(all.token_loss, nll_N.mean().item<double>(), 1e-9);
  ASSERT_EQ(all.buckets.size(), 3u);
  int64_t begin = 0;
  for (const PositionBucket& bucket : all.buckets) {
    const at::Tensor inside =
        nll_N.masked_select(position_N.ge(begin).logical_and(position_N.lt(bucket.end)));
    EXPECT_EQ(bucket.tokens, inside.numel()) << bucket.end;
    EXPECT_NEAR(bucket.loss, inside.mean().item<double>(), 1e-9) << bucket.end;
    begin = bucket.end;
  }
  EXPECT_EQ(begin, 4096);
  EXPECT_EQ(ToJson(all, 7).at("buckets").at(1).at("end"), 2048);
}

TEST_F(EvaluateTest, LossCountsEveryExampleOnceAsInTraining) {
  double sum = 0;
  for (const int32_t length : {2100, 1500, 300, 9, 8, 7})
    sum += Targets(RowOf({length})).first.mean().item<double>();
  const Evaluation all = Run(rows_, 10);
  EXPECT_NEAR(all.losses.loss, sum / 6, 1e-5);
  EXPECT_EQ(all.losses.text_loss, all.losses.loss);
}

TEST_F(EvaluateTest, NoMoreRowsThanAskedForAreRead) {
  EXPECT_EQ(Run(rows_, 1).tokens, 2099);
  EXPECT_EQ(Run(rows_, 2).tokens, 2099 + 1499 + 299);
  const Evaluation none = Run({}, 5);
  EXPECT_EQ(none.tokens, 0);
  EXPECT_EQ(none.token_loss, 0);
}

}  // namespace
}  // namespace lwm::train
