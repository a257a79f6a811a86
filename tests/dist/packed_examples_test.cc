// Examples packed into one row against the same examples alone, text and vision, over ranks.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/random.h"
#include "lwm/data/packing.h"
#include "lwm/testing/tiny_model.h"
#include "lwm/train/batch.h"
#include "lwm/train/step.h"
#include "tests/dist/mesh_shapes.h"
#include "tests/dist/mpi_main.h"

namespace lwm::train {
namespace {

constexpr int64_t kRowTokens = 128;

config::ModelConfig SmallModel() {
  config::ModelConfig model = testing_support::TinyConfig(/*vision_vocab_size=*/23);
  model.num_hidden_layers = 2;
  model.max_position_embeddings = kRowTokens;
  return model;
}

// A run of text, a run of codes, or one after the other in either order; parts without loss.
data::Example DrawExample(Random& random, int64_t tokens) {
  data::Example example;
  const int64_t turn = static_cast<int64_t>(random.Below(static_cast<uint64_t>(tokens) + 1));
  const bool codes_first = random.Below(2) == 0;
  for (int64_t i = 0; i < tokens; ++i) {
    const bool vision = (i < turn) == codes_first;
    example.token_n.push_back(static_cast<int32_t>(random.Below(vision ? 23 : 50)));
    example.vision_n.push_back(vision);
    example.loss_weight_n.push_back(random.Below(4) == 0 ? 0 : 1);
  }
  return example;
}

// So many examples of random lengths that together fit one row.
std::vector<data::Example> DrawExamples(uint64_t key, int64_t count) {
  Random random(key);
  std::vector<data::Example> examples;
  int64_t left = kRowTokens;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t most = left - 2 * (count - 1 - i);
    const int64_t fair = std::min(most, 2 * left / (count - i));
    const auto tokens = 2 + static_cast<int64_t>(random.Below(static_cast<uint64_t>(fair) - 1));
    examples.push_back(DrawExample(random, tokens));
    left -= tokens;
  }
  return examples;
}

std::vector<data::Row> Pack(const std::vector<data::Example>& examples,
                            data::PackingPolicy policy) {
  data::PackingConfig config;
  config.row_tokens = kRowTokens;
  config.policy = policy;
  data::Packer packer(config);
  std::vector<data::Row> rows;
  for (const data::Example& example : examples) {
    packer.Add(example);
    if (policy == data::PackingPolicy::kPad) rows.push_back(*packer.Flush());
  }
  while (auto row = packer.Flush()) rows.push_back(std::move(*row));
  return rows;
}

struct Result {
  Losses losses;
  std::vector<at::Tensor> gradients;  // this rank's shards, group by group
};

Result Measure(const std::vector<data::Row>& rows, dist::Mesh& mesh, int64_t micro_rows) {
  ShardedWeights weights(SmallModel(), mesh, at::kFloat);
  weights.InitRandom({.seed = 3, .table_std = 0.5, .matrix_std = 0.2});
  StepOptions options;
  options.micro_rows = micro_rows;
  size_t next = 0;
  const GlobalBatch batch =
      TakeGlobalBatch([&] { return rows[next++]; }, static_cast<int64_t>(rows.size()),
                      mesh.data_rank(), mesh.data_size());
  Result result;
  result.losses = AccumulateGradients(weights, batch, 1, options);
  weights.FinishGradients();
  for (int64_t group = weights.first_group(); group < weights.end_group(); ++group)
    result.gradients.push_back(weights.shard(group).gradient_n.clone());
  return result;
}

// The largest difference as a share of the group's largest gradient.
double WorstDifference(const Result& a, const Result& b) {
  double worst = 0;
  for (size_t g = 0; g < a.gradients.size(); ++g) {
    const double largest = std::max(1e-3, b.gradients[g].abs().max().item<double>());
    const double apart = (a.gradients[g] - b.gradients[g]).abs().max().item<double>();
    worst = std::max(worst, apart / largest);
  }
  return worst;
}

TEST(PackedExamplesTest, LossAndEveryGradientEqualThePaddedRegime) {
  const int ranks = lwm::testing::World().size();
  std::vector<dist::MeshShape> shapes = {{1, 1, 1, ranks}};
  if (ranks > 1) shapes.push_back({ranks, 1, 1, 1});
  if (ranks == 4) shapes.push_back({1, 2, 1, 2});
  double worst = 0;
  for (const dist::MeshShape& shape : shapes) {
    SCOPED_TRACE(lwm::testing::MeshText(shape));
    dist::Mesh mesh(lwm::testing::World(), shape);
    for (const int64_t count : {1, 2, 3, 5, 9, 14, 23, 31, 40}) {
      const auto examples = DrawExamples(static_cast<uint64_t>(count), count);
      const auto packed = Pack(examples, data::PackingPolicy::kMasked);
      const auto padded = Pack(examples, data::PackingPolicy::kPad);
      ASSERT_EQ(packed.size(), 1u);
      ASSERT_EQ(padded.size(), static_cast<size_t>(count));
      const Result one = Measure(packed, mesh, 1), many = Measure(padded, mesh, 7);
      EXPECT_GT(many.losses.vision_loss + many.losses.text_loss, 0);
      EXPECT_NEAR(one.losses.loss, many.losses.loss, 1e-6 * (1 + many.losses.loss)) << count;
      EXPECT_NEAR(one.losses.text_loss, many.losses.text_loss, 4e-6) << count;
      EXPECT_NEAR(one.losses.vision_loss, many.losses.vision_loss, 4e-6) << count;
      worst = std::max(worst, WorstDifference(one, many));
    }
  }
  EXPECT_LE(worst, 2.4e-6);
  if (lwm::testing::World().rank() == 0) RecordProperty("worst", Cat(worst));
}

struct Outputs {
  at::Tensor hidden_TD, nll_T;
};

Outputs Forward(const data::Row& row, dist::Mesh& mesh, Batch& batch) {
  ShardedWeights weights(SmallModel(), mesh, at::kFloat);
  weights.InitRandom({.seed = 3, .table_std = 0.5, .matrix_std = 0.2});
  batch = MakeBatch({&row}, mesh.sp());
  const model::DecoderOptions options;
  return {model::DecoderHidden(SmallModel(), weights, batch.input, options)[0].clone(),
          model::DecoderForward(SmallModel(), weights, batch.input, batch.targets, options)
              .nll_BT[0]
              .clone()};
}

TEST(PackedExamplesTest, PerturbingAnExampleChangesNothingOfTheOthers) {
  dist::Mesh mesh(lwm::testing::World(), {1, 1, 1, lwm::testing::World().size()});
  const auto examples = DrawExamples(77, 17);
  const data::Row row = Pack(examples, data::PackingPolicy::kMasked).at(0);
  Batch batch;
  const Outputs before = Forward(row, mesh, batch);
  const at::Tensor begin_T =
      batch.input.view.begin_PBT[batch.input.view.rank()][0].to(at::kCPU, at::kLong);
  const at::Tensor real_T = batch.input.view.index_PBT[batch.input.view.rank()][0].ge(0);
  std::vector<int32_t> begins(row.begin_S.begin(), row.begin_S.end() - row.padding);
  begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
  ASSERT_EQ(begins.size(), 17u);
  double changed = 0;
  for (const int32_t begin : begins) {
    data::Row other = row;
    for (size_t i = 0; i < other.token_S.size(); ++i)
      if (other.begin_S[i] == begin)
        other.token_S[i] = (other.token_S[i] + 7) % (other.vision_S[i] ? 23 : 50);
    const Outputs after = Forward(other, mesh, batch);
    const at::Tensor others_T = begin_T.ne(begin).logical_and(real_T);
    EXPECT_TRUE(at::equal(after.hidden_TD.index({others_T}), before.hidden_TD.index({others_T})))
        << "segment at " << begin;
    EXPECT_TRUE(at::equal(after.nll_T.index({others_T}), before.nll_T.index({others_T})));
    changed += (after.hidden_TD - before.hidden_TD).abs().sum().item<double>();
  }
  mesh.sp().AllReduceSum(std::span(&changed, 1));
  EXPECT_GT(changed, 1);
}

}  // namespace
}  // namespace lwm::train
