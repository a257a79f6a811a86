#include "lwm/infer/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::infer {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::map<int64_t, double> Frequencies(const SamplingOptions& options,
                                      const std::vector<float>& logits, int draws = 20000) {
  Sampler sampler(options, 7);
  std::map<int64_t, double> frequency;
  for (int i = 0; i < draws; ++i) ++frequency[sampler.Sample(logits)];
  for (auto& [token, count] : frequency) count /= draws;
  return frequency;
}

// Four standard deviations of a frequency over 20000 draws.
double Tolerance(double p) { return 4 * std::sqrt(p * (1 - p) / 20000); }

void ExpectFrequencies(const SamplingOptions& options, const std::vector<float>& logits,
                       const std::map<int64_t, double>& want) {
  const auto got = Frequencies(options, logits);
  EXPECT_EQ(got.size(), want.size());
  for (const auto& [token, p] : want) {
    ASSERT_TRUE(got.contains(token)) << token;
    EXPECT_NEAR(got.at(token), p, Tolerance(p)) << token;
  }
}

// Probabilities 0.1, 0.4, 0.2, 0.3.
const std::vector<float> kLogits = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};

TEST(SamplerTest, TemperatureZeroTakesTheLargestAndTheFirstOfEqualOnes) {
  Sampler sampler({.temperature = 0}, 1);
  EXPECT_EQ(sampler.Sample(kLogits), 1);
  EXPECT_EQ(sampler.Sample(std::vector<float>{-3, 2, 2, -kInfinity}), 1);
}

TEST(SamplerTest, DrawsFromTheSoftmax) {
  ExpectFrequencies({}, kLogits, {{0, 0.1}, {1, 0.4}, {2, 0.2}, {3, 0.3}});
}

TEST(SamplerTest, TemperatureSharpensTheSoftmax) {
  // p^2 normalised: 0.01, 0.16, 0.04, 0.09 of 0.3
  ExpectFrequencies({.temperature = 0.5}, kLogits,
                    {{0, 0.01 / 0.3}, {1, 0.16 / 0.3}, {2, 0.04 / 0.3}, {3, 0.09 / 0.3}});
}

TEST(SamplerTest, TopKKeepsTheKLikeliestInProportion) {
  ExpectFrequencies({.top_k = 2}, kLogits, {{1, 4.0 / 7}, {3, 3.0 / 7}});
  ExpectFrequencies({.top_k = 1}, kLogits, {{1, 1.0}});
  ExpectFrequencies({.top_k = 9}, kLogits, {{0, 0.1}, {1, 0.4}, {2, 0.2}, {3, 0.3}});
}

TEST(SamplerTest, TopPKeepsTheTokenThatCrossesTheLimit) {
  ExpectFrequencies({.top_p = 0.65}, kLogits, {{1, 4.0 / 7}, {3, 3.0 / 7}});
  ExpectFrequencies({.top_p = 0.75}, kLogits, {{1, 4.0 / 9}, {2, 2.0 / 9}, {3, 3.0 / 9}});
  ExpectFrequencies({.top_p = 1e-9}, kLogits, {{1, 1.0}});
}

// Of the two kept by top-k, 0.4 / 0.7 = 0.571 is enough for p = 0.5; before top-k it is not.
TEST(SamplerTest, TopPCountsWhatTopKLeft) {
  ExpectFrequencies({.top_k = 2, .top_p = 0.5}, kLogits, {{1, 1.0}});
  ExpectFrequencies({.top_p = 0.5}, kLogits, {{1, 4.0 / 7}, {3, 3.0 / 7}});
}

// At temperature 0.5 the first two have 0.25 / 0.3 = 0.83 together, at 1 only 0.7.
TEST(SamplerTest, TopPCountsAfterTemperature) {
  ExpectFrequencies({.temperature = 0.5, .top_p = 0.8}, kLogits,
                    {{1, 0.16 / 0.25}, {3, 0.09 / 0.25}});
  EXPECT_EQ(Frequencies({.top_p = 0.8}, kLogits).size(), 3u);
}

TEST(SamplerTest, MinusInfinityIsNeverDrawn) {
  ExpectFrequencies({}, {-kInfinity, 0, -kInfinity, 0}, {{1, 0.5}, {3, 0.5}});
}

// Hugging Face's rule, before the temperature: 2 / 2 = 1 and -1 * 2 = -2.
TEST(SamplerTest, RepetitionPenaltyLowersTokensThatWereSeen) {
  const std::vector<float> logits = {2, 1.5, -1, -1.5};
  Sampler greedy({.repetition_penalty = 2, .temperature = 0}, 1);
  EXPECT_EQ(greedy.Sample(logits), 0);
  greedy.See(0);
  greedy.See(0);   // once or twice is the same
  greedy.See(17);  // an id that may be read and not drawn
  EXPECT_EQ(greedy.Sample(logits), 1);
  greedy.See(1);
  EXPECT_EQ(greedy.Sample(logits), 0);
  const std::vector<float> negative = {-1, -1.5};
  EXPECT_EQ(greedy.Sample(negative), 0);  // both were seen
  Sampler first({.repetition_penalty = 2, .temperature = 0}, 1);
  first.See(0);
  EXPECT_EQ(first.Sample(negative), 1);
  Sampler without({.temperature = 0}, 1);
  without.See(0);
  EXPECT_EQ(without.Sample(logits), 0);
}

TEST(SamplerTest, TheSeedDecidesTheSequence) {
  Sampler a({}, 3), b({}, 3), c({}, 4);
  std::vector<int64_t> from_a, from_b, from_c;
  for (int i = 0; i < 50; ++i) {
    from_a.push_back(a.Sample(kLogits));
    from_b.push_back(b.Sample(kLogits));
    from_c.push_back(c.Sample(kLogits));
  }
  EXPECT_EQ(from_a, from_b);
  EXPECT_NE(from_a, from_c);
}

TEST(SamplerTest, LogitsThatAreNoNumbersAreRefusedNamingTheToken) {
  for (const double temperature : {0.0, 1.0})
    for (const float bad : {std::nanf(""), kInfinity}) {
      Sampler sampler({.temperature = temperature}, 1);
      try {
        sampler.Sample(std::vector<float>{0, 1, bad, 0});
        ADD_FAILURE() << "accepted " << bad;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
        EXPECT_NE(std::string(error.what()).find("token 2"), std::string::npos) << error.what();
      }
    }
  Sampler sampler({}, 1);
  EXPECT_ERROR(sampler.Sample(std::vector<float>{-kInfinity, -kInfinity}), kCorruptData);
}

TEST(SamplerTest, OptionsOutOfRangeAreRefused) {
  EXPECT_ERROR(Sampler({.temperature = -1}, 1), kInvalidArgument);
  EXPECT_ERROR(Sampler({.temperature = std::nan("")}, 1), kInvalidArgument);
  EXPECT_ERROR(Sampler({.repetition_penalty = 0}, 1), kInvalidArgument);
  EXPECT_ERROR(Sampler({.top_k = -1}, 1), kInvalidArgument);
  EXPECT_ERROR(Sampler({.top_p = 0}, 1), kInvalidArgument);
  EXPECT_ERROR(Sampler({.top_p = 1.5}, 1), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::infer
