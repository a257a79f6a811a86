#include "lwm/data/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lwm/base/error.h"
#include "lwm/base/random.h"
#include "lwm/testing/error_of.h"

namespace lwm::data {
namespace {

// Example e of `size` tokens that carry their place: token i = 1000 * e + i.
Example MakeExample(int32_t e, int32_t size) {
  Example example;
  for (int32_t i = 0; i < size; ++i) example.token_n.push_back(1000 * e + i);
  example.vision_n.assign(static_cast<size_t>(size), 0);
  example.loss_weight_n.assign(static_cast<size_t>(size), 1.0f);
  example.source = Cat("example ", e);
  return example;
}

// Examples of random length with vision runs and tokens without loss.
std::vector<Example> MakeMixedExamples(int count, int max_size, uint64_t seed) {
  Random random(seed);
  std::vector<Example> examples;
  for (int e = 1; e <= count; ++e) {
    const auto size = 2 + static_cast<int32_t>(random.Below(static_cast<uint64_t>(max_size - 1)));
    Example example = MakeExample(e, size);
    for (size_t i = 0; i < example.token_n.size(); ++i) {
      example.vision_n[i] = random.Below(3) == 0;
      example.loss_weight_n[i] = random.Below(4) == 0 ? 0.0f : 1.0f;
    }
    examples.push_back(std::move(example));
  }
  return examples;
}

std::vector<Row> PackAll(const PackingConfig& config, const std::vector<Example>& examples) {
  Packer packer(config);
  std::vector<Row> rows;
  for (size_t e = 0; e < examples.size(); ++e) {
    while (!packer.wants_more()) rows.push_back(packer.NextRow());
    packer.Add(examples[e], static_cast<int64_t>(e));
  }
  while (auto row = packer.Flush()) rows.push_back(std::move(*row));
  return rows;
}

PackingConfig Config(PackingPolicy policy, int64_t row_tokens) {
  PackingConfig config;
  config.policy = policy;
  config.row_tokens = row_tokens;
  config.buffer_tokens = 64 * row_tokens;
  config.pad_token = -7;
  return config;
}

double Fill(const std::vector<Row>& rows) {
  int64_t tokens = 0, padding = 0;
  for (const Row& row : rows) {
    tokens += static_cast<int64_t>(row.token_S.size());
    padding += row.padding;
  }
  return 1.0 - static_cast<double>(padding) / static_cast<double>(tokens);
}

void ExpectConsistent(const Row& row, bool one_segment) {
  const size_t size = row.token_S.size();
  ASSERT_EQ(row.begin_S.size(), size);
  for (size_t i = 0; i < size; ++i) {
    const auto begin = static_cast<size_t>(row.begin_S[i]);
    ASSERT_LE(begin, i);
    ASSERT_EQ(row.position_S[i], static_cast<int32_t>(i - begin));
    ASSERT_EQ(row.begin_S[begin], row.begin_S[i]);
    ASSERT_EQ(row.target_S[i] == kNoTarget, row.weight_S[i] == 0);
    const bool padding = i >= size - static_cast<size_t>(row.padding);
    if (padding) {
      ASSERT_EQ(row.token_S[i], -7);
      ASSERT_EQ(row.target_S[i], kNoTarget);
      ASSERT_EQ(row.begin_S[i], static_cast<int32_t>(size) - row.padding);
    } else if (one_segment) {
      ASSERT_EQ(row.begin_S[i], 0);
    }
    if (row.target_S[i] != kNoTarget && i + 1 < size && row.begin_S[i + 1] == row.begin_S[i]) {
      ASSERT_EQ(row.target_S[i], row.token_S[i + 1]);
      ASSERT_EQ(row.target_vision_S[i], row.vision_S[i + 1]);
    }
  }
}

TEST(PackingTest, MaskedWeightsSumToOnePerExampleAndModality) {
  const auto examples = MakeMixedExamples(300, 90, 1);
  std::map<int32_t, double> sum[2];
  int64_t counted = 0;
  for (const Row& row : PackAll(Config(PackingPolicy::kMasked, 128), examples)) {
    ExpectConsistent(row, false);
    counted += row.examples;
    for (size_t i = 0; i < row.token_S.size(); ++i)
      if (row.weight_S[i] > 0)
        sum[row.target_vision_S[i]][row.target_S[i] / 1000] += static_cast<double>(row.weight_S[i]);
  }
  std::set<int32_t> learned;
  for (int modality = 0; modality < 2; ++modality)
    for (const auto& [e, total] : sum[modality]) {
      EXPECT_NEAR(total, 1.0, 1e-6) << "example " << e;
      learned.insert(e);
    }
  EXPECT_EQ(counted, static_cast<int64_t>(learned.size()));
  EXPECT_GT(learned.size(), 290u);
}

TEST(PackingTest, MaskedPlacesEveryTokenOnceAndLearnsEveryTarget) {
  const auto examples = MakeMixedExamples(300, 90, 2);
  std::multiset<int32_t> placed, expected, targets, expected_targets;
  for (const Example& example : examples)
    for (size_t i = 0; i < example.token_n.size(); ++i) {
      expected.insert(example.token_n[i]);
      if (i > 0 && example.loss_weight_n[i] > 0) expected_targets.insert(example.token_n[i]);
    }
  for (const Row& row : PackAll(Config(PackingPolicy::kMasked, 128), examples))
    for (size_t i = 0; i < row.token_S.size(); ++i) {
      if (row.token_S[i] >= 0) placed.insert(row.token_S[i]);
      if (row.target_S[i] >= 0) targets.insert(row.target_S[i]);
    }
  EXPECT_EQ(placed, expected);
  EXPECT_EQ(targets, expected_targets);
}

TEST(PackingTest, MaskedFillsRowsOfMixedLengthsToNinetyEightPercent) {
  for (const int max_size : {100, 500, 1000}) {
    auto rows = PackAll(Config(PackingPolicy::kMasked, 1024), MakeMixedExamples(2000, max_size, 3));
    ASSERT_GT(rows.size(), 20u);
    rows.pop_back();  // the last row need not be full
    EXPECT_GE(Fill(rows), 0.98) << "lengths up to " << max_size;
  }
}

TEST(PackingTest, NoExampleWaitsForEver) {
  PackingConfig config = Config(PackingPolicy::kMasked, 100);
  config.buffer_tokens = 800;
  Packer packer(config);
  packer.Add(MakeExample(1, 53), 1);  // never the best fit beside pairs of 50
  int rows = 0;
  for (int e = 2; packer.held()[0].id == 1; ++e) {
    while (packer.wants_more()) packer.Add(MakeExample(e, 50), e);
    packer.NextRow();
    ASSERT_LE(++rows, 3);
  }
}

TEST(PackingTest, ExampleLongerThanARowIsSplitWithoutLosingATarget) {
  const auto rows = PackAll(Config(PackingPolicy::kMasked, 64), {MakeExample(1, 150)});
  ASSERT_EQ(rows.size(), 3u);
  std::vector<int32_t> targets;
  for (const Row& row : rows) {
    ExpectConsistent(row, true);
    EXPECT_EQ(row.examples, 1);
    double sum = 0;
    for (size_t i = 0; i < 64; ++i) {
      sum += static_cast<double>(row.weight_S[i]);
      if (row.target_S[i] >= 0) targets.push_back(row.target_S[i]);
    }
    EXPECT_NEAR(sum, 1.0, 1e-6);
  }
  ASSERT_EQ(targets.size(), 149u);
  for (int32_t i = 0; i < 149; ++i) EXPECT_EQ(targets[static_cast<size_t>(i)], 1001 + i);
}

TEST(PackingTest, LongExampleIsRefusedByNameWhenAsked) {
  PackingConfig config = Config(PackingPolicy::kMasked, 64);
  config.refuse_long_examples = true;
  Packer packer(config);
  packer.Add(MakeExample(1, 64));
  try {
    packer.Add(MakeExample(2, 65));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("example 2: an example of 65 tokens"),
              std::string::npos)
        << error.what();
  }
}

TEST(PackingTest, PadKeepsOneExamplePerRowAndCutsWithoutShiftingTheLossMask) {
  Example example = MakeExample(1, 70);
  for (const size_t i : {1u, 5u, 64u, 65u}) example.loss_weight_n[i] = 0;
  const auto rows = PackAll(Config(PackingPolicy::kPad, 64), {example, MakeExample(2, 10)});
  ASSERT_EQ(rows.size(), 2u);
  for (const Row& row : rows) ExpectConsistent(row, false);
  for (size_t i = 0; i < 64; ++i) {
    const bool learned = i != 0 && i != 4 && i != 63;
    EXPECT_EQ(rows[0].target_S[i], learned ? static_cast<int32_t>(1001 + i) : kNoTarget) << i;
    EXPECT_FLOAT_EQ(rows[0].weight_S[i], learned ? 1.0f / 61 : 0.0f);
  }
  EXPECT_EQ(rows[1].padding, 54);
  EXPECT_EQ(rows[1].target_S[9], kNoTarget);
  EXPECT_FLOAT_EQ(rows[1].weight_S[8], 1.0f / 9);
}

TEST(PackingTest, ConcatenateRunsAcrossExamplesAndRows) {
  std::vector<Example> examples;
  std::vector<int32_t> stream;
  for (int e = 1; e <= 40; ++e) {
    examples.push_back(MakeExample(e, 3 + e * 7 % 50));
    examples.back().loss_weight_n[0] = 0;  // as a BOS
    stream.insert(stream.end(), examples.back().token_n.begin(), examples.back().token_n.end());
  }
  const auto rows = PackAll(Config(PackingPolicy::kConcatenate, 64), examples);
  ASSERT_EQ(rows.size(), (stream.size() + 63) / 64);
  for (size_t r = 0; r + 1 < rows.size(); ++r) {
    ExpectConsistent(rows[r], true);
    EXPECT_EQ(rows[r].examples, 1);
    EXPECT_EQ(rows[r].padding, 0);
    double sum = 0;
    for (size_t i = 0; i < 64; ++i) {
      const int32_t next = stream[r * 64 + i + 1];
      EXPECT_EQ(rows[r].token_S[i], stream[r * 64 + i]);
      EXPECT_EQ(rows[r].target_S[i], next % 1000 == 0 ? kNoTarget : next);
      sum += static_cast<double>(rows[r].weight_S[i]);
    }
    EXPECT_NEAR(sum, 1.0, 1e-6);
  }
}

TEST(PackingTest, RowNormaliserGivesEveryTargetOfARowTheSameWeight) {
  PackingConfig config = Config(PackingPolicy::kMasked, 32);
  config.normaliser = LossNormaliser::kRow;
  const auto rows = PackAll(config, {MakeExample(1, 20), MakeExample(2, 12)});
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].examples, 1);
  for (size_t i = 0; i < 32; ++i)
    EXPECT_FLOAT_EQ(rows[0].weight_S[i], i == 19 || i == 31 ? 0.0f : 1.0f / 30);
}

// HasTarget says of an example alone what its rows show.
TEST(PackingTest, HasTargetAgreesWithTheRows) {
  for (const auto policy : {PackingPolicy::kMasked, PackingPolicy::kPad}) {
    const PackingConfig config = Config(policy, 4);
    for (int32_t size = 1; size <= 9; ++size)
      for (int32_t learned = -1; learned <= size; ++learned) {  // `size`: the token that follows
        Example example = MakeExample(1, size);
        example.loss_weight_n.assign(static_cast<size_t>(size), 0);
        if (learned >= 0 && learned < size) example.loss_weight_n[static_cast<size_t>(learned)] = 1;
        if (learned == size) {
          example.next_token = 7;
          example.next_loss_weight = 1;
        }
        bool has_target = false;
        for (const Row& row : PackAll(config, {example}))
          for (const int32_t target : row.target_S) has_target = has_target || target != kNoTarget;
        EXPECT_EQ(HasTarget(example, config), has_target) << size << " " << learned;
      }
  }
}

TEST(PackingTest, ExamplesWithNothingToLearnAreNotCounted) {
  Example silent = MakeExample(1, 10);
  silent.loss_weight_n.assign(10, 0.0f);
  const auto rows =
      PackAll(Config(PackingPolicy::kMasked, 32), {silent, MakeExample(2, 5), MakeExample(3, 1)});
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].examples, 1);
  EXPECT_EQ(rows[0].padding, 17);  // the one-token example is dropped
}

TEST(PackingTest, RefilledPackerGoesOnWithTheSameRows) {
  const auto examples = MakeMixedExamples(400, 150, 5);
  for (const auto policy : {PackingPolicy::kMasked, PackingPolicy::kConcatenate}) {
    PackingConfig config = Config(policy, 100);
    config.buffer_tokens = 1000;
    size_t next = 0;
    const auto next_row = [&](Packer& packer) {
      for (; packer.wants_more(); ++next) packer.Add(examples[next], static_cast<int64_t>(next));
      return packer.NextRow();
    };
    Packer packer(config);
    for (int r = 0; r < 37; ++r) next_row(packer);
    const size_t saved = next;
    Packer again(config);
    for (const auto& held : packer.held())
      again.AddHeld(std::make_shared<const Example>(examples[static_cast<size_t>(held.id)]), held);
    EXPECT_EQ(again.held(), packer.held());
    std::vector<Row> expected;
    for (int r = 0; r < 20; ++r) expected.push_back(next_row(packer));
    next = saved;
    for (const Row& row : expected) {
      const Row restored = next_row(again);
      EXPECT_EQ(restored.token_S, row.token_S);
      EXPECT_EQ(restored.target_S, row.target_S);
      EXPECT_EQ(restored.weight_S, row.weight_S);
    }
  }
}

TEST(PackingTest, RowLongerThanTheModelIsRefused) {
  EXPECT_NO_THROW(ValidatePacking(Config(PackingPolicy::kMasked, 4096), 4096));
  EXPECT_ERROR(ValidatePacking(Config(PackingPolicy::kMasked, 4097), 4096), kInvalidArgument);
  EXPECT_ERROR(ValidatePacking(Config(PackingPolicy::kMasked, 1), 0), kInvalidArgument);
}

TEST(PackingTest, MisspeltPolicyNamesTheNearest) {
  EXPECT_EQ(ParsePackingPolicy("concatenate"), PackingPolicy::kConcatenate);
  EXPECT_EQ(ParseLossNormaliser("row"), LossNormaliser::kRow);
  try {
    ParsePackingPolicy("maskd");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'masked'"), std::string::npos);
  }
}

}  // namespace
}  // namespace lwm::data
