#include "lwm/config/rope_frequencies.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lwm::config {
namespace {

ModelConfig ConfigWith(const char* patch) {
  Json json = ParseJson(R"({"model_type": "llama", "vocab_size": 128, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 256, "rope_theta": 10000.0})",
                        "small");
  json.merge_patch(ParseJson(patch, "patch"));
  return ParseModelConfig(json, "test.json");
}

// `expected` was computed by transformers 5.23 for the config of each test. Its exponents are
// rounded to f32, an error of up to ln(theta) * 2^-25 = 5e-7.
void ExpectFrequencies(const RopeFrequencies& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.inverse_frequency_R.size(), expected.size());
  for (size_t r = 0; r < expected.size(); ++r)
    EXPECT_NEAR(actual.inverse_frequency_R[r], expected[r], 7e-7 * expected[r]) << r;
}

TEST(RopeFrequenciesTest, DefaultUsesTheExplicitHeadDim) {
  const RopeFrequencies result =
      ComputeRopeFrequencies(ConfigWith(R"({"head_dim": 24, "rope_theta": 25000000.0})"), 1 << 20);
  ExpectFrequencies(result, {1, 0.241827101, 0.0584803522, 0.0141421361, 0.0034199513,
                             0.000827037264, 0.000199999995, 4.83654403e-05, 1.16960664e-05,
                             2.82842734e-06, 6.83990606e-07, 1.65407371e-07});
  EXPECT_EQ(result.attention_factor, 1);
}

TEST(RopeFrequenciesTest, LinearDividesEveryFrequency) {
  const RopeFrequencies result = ComputeRopeFrequencies(
      ConfigWith(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})"), 100);
  ExpectFrequencies(
      result, {0.25, 0.140585333, 0.079056941, 0.0444569848, 0.0250000004, 0.0140585322,
               0.00790569466, 0.00444569858, 0.00249999994, 0.00140585331, 0.000790569466,
               0.000444569858, 0.000250000012, 0.000140585325, 7.90569466e-05, 4.44569851e-05});
}

TEST(RopeFrequenciesTest, DynamicDependsOnTheLengthBeyondTheTrainedOne) {
  const ModelConfig config = ConfigWith(
      R"({"max_position_embeddings": 24, "rope_scaling": {"type": "dynamic", "factor": 2.0}})");
  const std::vector<double> trained = {1,
                                       0.562341332,
                                       0.316227764,
                                       0.177827939,
                                       0.100000001,
                                       0.0562341288,
                                       0.0316227786,
                                       0.0177827943,
                                       0.00999999978,
                                       0.00562341325,
                                       0.00316227786,
                                       0.00177827943,
                                       0.00100000005,
                                       0.000562341302,
                                       0.000316227786,
                                       0.00017782794};
  for (const int64_t tokens : {0, 1, 24})
    ExpectFrequencies(ComputeRopeFrequencies(config, tokens), trained);
  ExpectFrequencies(
      ComputeRopeFrequencies(config, 61),
      {1, 0.511994958, 0.262138814, 0.13421376, 0.0687167645, 0.0351826362, 0.018013332,
       0.00922273565, 0.00472199405, 0.00241763704, 0.00123781792, 0.000633756514, 0.000324480119,
       0.000166132202, 8.50588403e-05, 4.35496986e-05});
}

TEST(RopeFrequenciesTest, YarnRampsAndScalesByTheDefaultFactor) {
  const RopeFrequencies result = ComputeRopeFrequencies(
      ConfigWith(R"({"max_position_embeddings": 128, "rope_scaling": {"rope_type": "yarn",
        "factor": 4.0, "original_max_position_embeddings": 32}})"),
      61);
  ExpectFrequencies(
      result, {1, 0.42175597, 0.158113882, 0.0444569848, 0.0250000004, 0.0140585322, 0.00790569466,
               0.00444569858, 0.00249999994, 0.00140585331, 0.000790569466, 0.000444569858,
               0.000250000012, 0.000140585325, 7.90569466e-05, 4.44569851e-05});
  EXPECT_NEAR(result.attention_factor, 1.138629436111989, 1e-14);
}

TEST(RopeFrequenciesTest, YarnHonoursGivenFactorAndBetas) {
  const RopeFrequencies result = ComputeRopeFrequencies(
      ConfigWith(R"({"rope_scaling": {"rope_type": "yarn", "attention_factor": 1.1,
        "beta_fast": 16.0, "beta_slow": 2.0, "factor": 8.0,
        "original_max_position_embeddings": 32}})"),
      61);
  ExpectFrequencies(
      result, {1, 0.316316992, 0.0395284705, 0.0222284924, 0.0125000002, 0.0070292661,
               0.00395284733, 0.00222284929, 0.00124999997, 0.000702926656, 0.000395284733,
               0.000222284929, 0.000125000006, 7.02926627e-05, 3.95284733e-05, 2.22284925e-05});
  EXPECT_EQ(result.attention_factor, 1.1);
}

TEST(RopeFrequenciesTest, YarnMscalesGiveTheRatio) {
  const ModelConfig config = ConfigWith(R"({"rope_scaling": {"rope_type": "yarn", "factor": 40,
      "mscale": 1.0, "mscale_all_dim": 0.5}})");
  const double log40 = std::log(40.0);
  EXPECT_NEAR(ComputeRopeFrequencies(config, 1).attention_factor,
              (0.1 * log40 + 1) / (0.05 * log40 + 1), 1e-14);
}

TEST(RopeFrequenciesTest, YarnFactorFollowsFromTheLengthsWhenAbsent) {
  const ModelConfig config = ConfigWith(R"({"max_position_embeddings": 128,
      "rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 32}})");
  EXPECT_EQ(config.rope_scaling.factor, 4);
}

TEST(RopeFrequenciesTest, YarnWithoutTruncationKeepsFractionalLimits) {
  const char* form = R"({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "yarn",
      "factor": 4.0, "original_max_position_embeddings": 2048, "truncate": false}})";
  const auto frequency_R = ComputeRopeFrequencies(ConfigWith(form), 1).inverse_frequency_R;
  // Pairs of 32 and 1 turns over 2048 tokens: 16 log(2048 / (2 pi n)) / log(10000).
  const double low = 16 * std::log(2048 / (64 * M_PI)) / std::log(1e4);
  const double high = 16 * std::log(2048 / (2 * M_PI)) / std::log(1e4);
  const double ramp = (7 - low) / (high - low);
  EXPECT_NEAR(frequency_R[7] / std::pow(1e4, -7.0 / 16), 1 - ramp * 0.75, 1e-12);
}

TEST(RopeFrequenciesTest, Llama3SmoothsBetweenTheWavelengths) {
  const RopeFrequencies result =
      ComputeRopeFrequencies(ConfigWith(R"({"max_position_embeddings": 1024, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0,
        "low_freq_factor": 1.0, "original_max_position_embeddings": 64}})"),
                             61);
  ExpectFrequencies(
      result, {1, 0.440366626, 0.079403013, 0.0106746377, 0.00470075384, 0.00207005511,
               0.000911583134, 0.000401430763, 0.000176776681, 7.78465546e-05, 3.42810235e-05,
               1.50962178e-05, 6.64786967e-06, 2.92749974e-06, 1.28917316e-06, 5.6770881e-07});
  EXPECT_EQ(result.attention_factor, 1);
}

}  // namespace
}  // namespace lwm::config
