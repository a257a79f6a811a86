#include "lwm/kernels/elementwise/group_norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "lwm/kernels/bf16.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

// Values that bf16 holds exactly.
Floats Random(size_t count, uint32_t seed, float mean = 0) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(mean);
  Floats values(count);
  for (float& value : values) value = FloatFromBf16(Bf16FromFloat(normal(rng)));
  return values;
}

std::vector<uint16_t> ToBf16(const Floats& values) {
  std::vector<uint16_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(), Bf16FromFloat);
  return bits;
}

struct Problem {
  Problem(size_t p, size_t c) : pixels(p), channels(c) {}

  size_t pixels, channels;
  Floats x_PC = Random(pixels * channels, 1, 0.5f), dy_PC = Random(pixels * channels, 2);
  Floats shift_C = Random(channels, 3), slope_C = Random(channels, 4);
  Floats offset_C = Random(channels, 5), level_C = Random(channels, 6);
  Floats pull_C = Random(channels, 7);
  ChannelAffine affine() const { return {shift_C.data(), slope_C.data(), offset_C.data()}; }

  double Centred(size_t i) const { return static_cast<double>(x_PC[i]) - shift_C[i % channels]; }
  double Value(size_t i) const {
    return Centred(i) * slope_C[i % channels] + offset_C[i % channels];
  }
  double Gradient(size_t i) const {
    const double v = Value(i), sigmoid = 1 / (1 + std::exp(-v));
    return dy_PC[i] * sigmoid * (1 + v * (1 - sigmoid));
  }
};

void ExpectMomentsMatch(const Floats& x_PC, size_t pixels, size_t channels, const char* where) {
  Doubles mean_C(channels), square_C(channels), mean16_C(channels), square16_C(channels);
  const auto x16_PC = ToBf16(x_PC);
  ChannelMoments(x_PC.data(), pixels, channels, mean_C.data(), square_C.data());
  ChannelMoments(x16_PC.data(), pixels, channels, mean16_C.data(), square16_C.data());
  for (size_t c = 0; c < channels; ++c) {
    double mean = 0, square = 0, largest = 0;
    for (size_t p = 0; p < pixels; ++p) mean += x_PC[p * channels + c];
    mean /= static_cast<double>(pixels);
    for (size_t p = 0; p < pixels; ++p) {
      const double x = x_PC[p * channels + c];
      square += (x - mean) * (x - mean);
      largest = std::max(largest, std::abs(x));
    }
    ASSERT_NEAR(mean_C[c], mean, 1e-6 * largest) << where << " " << channels << " " << c;
    ASSERT_NEAR(square_C[c], square, 1e-6 * square + 1e-12) << where << " " << channels << " " << c;
    ASSERT_EQ(mean16_C[c], mean_C[c]);
    ASSERT_EQ(square16_C[c], square_C[c]);
  }
}

void ExpectForwardMatches(const Problem& problem, const char* where) {
  const auto x16_PC = ToBf16(problem.x_PC);
  Floats y_PC(problem.x_PC.size());
  std::vector<uint16_t> y16_PC(y_PC.size());
  NormSilu(problem.x_PC.data(), problem.pixels, problem.channels, problem.affine(), y_PC.data());
  NormSilu(x16_PC.data(), problem.pixels, problem.channels, problem.affine(), y16_PC.data());
  for (size_t i = 0; i < y_PC.size(); ++i) {
    const double v = problem.Value(i), y = v / (1 + std::exp(-v));
    const double bound = 5e-7 * (std::abs(v) + std::abs(problem.offset_C[i % problem.channels]));
    ASSERT_NEAR(y_PC[i], y, bound) << where << " " << problem.channels << " " << i;
    ASSERT_EQ(y16_PC[i], Bf16FromFloat(y_PC[i])) << where << " " << problem.channels << " " << i;
  }
}

void ExpectSumsMatch(const Problem& problem, const char* where) {
  const size_t channels = problem.channels;
  const auto x16_PC = ToBf16(problem.x_PC), dy16_PC = ToBf16(problem.dy_PC);
  Doubles sum_C(channels), dot_C(channels), sum16_C(channels), dot16_C(channels);
  NormSiluSums(problem.dy_PC.data(), problem.x_PC.data(), problem.pixels, channels,
               problem.affine(), sum_C.data(), dot_C.data());
  NormSiluSums(dy16_PC.data(), x16_PC.data(), problem.pixels, channels, problem.affine(),
               sum16_C.data(), dot16_C.data());
  for (size_t c = 0; c < channels; ++c) {
    double sum = 0, dot = 0, sum_size = 0, dot_size = 0;
    for (size_t i = c; i < problem.x_PC.size(); i += channels) {
      const double dv = problem.Gradient(i), x = problem.Centred(i);
      sum += dv;
      dot += dv * x;
      sum_size += std::abs(problem.dy_PC[i]);
      dot_size += std::abs(problem.dy_PC[i] * x);
    }
    ASSERT_NEAR(sum_C[c], sum, 1e-6 * sum_size) << where << " " << channels << " " << c;
    ASSERT_NEAR(dot_C[c], dot, 1e-6 * dot_size) << where << " " << channels << " " << c;
    ASSERT_EQ(sum16_C[c], sum_C[c]);
    ASSERT_EQ(dot16_C[c], dot_C[c]);
  }
}

void ExpectBackwardMatches(const Problem& problem, const char* where) {
  const auto x16_PC = ToBf16(problem.x_PC), dy16_PC = ToBf16(problem.dy_PC);
  Floats dx_PC(problem.x_PC.size());
  std::vector<uint16_t> dx16_PC(dx_PC.size());
  NormSiluBackward(problem.dy_PC.data(), problem.x_PC.data(), problem.pixels, problem.channels,
                   problem.affine(), {problem.level_C.data(), problem.pull_C.data()}, dx_PC.data());
  NormSiluBackward(dy16_PC.data(), x16_PC.data(), problem.pixels, problem.channels,
                   problem.affine(), {problem.level_C.data(), problem.pull_C.data()},
                   dx16_PC.data());
  for (size_t i = 0; i < dx_PC.size(); ++i) {
    const size_t c = i % problem.channels;
    const double direct = problem.Gradient(i) * problem.slope_C[c];
    const double pull = problem.Centred(i) * problem.pull_C[c];
    const double size = std::abs(problem.dy_PC[i] * problem.slope_C[c]) + std::abs(pull) +
                        std::abs(problem.level_C[c]);
    ASSERT_NEAR(dx_PC[i], direct - problem.level_C[c] - pull, 1e-6 * size)
        << where << " " << problem.channels << " " << i;
    ASSERT_EQ(dx16_PC[i], Bf16FromFloat(dx_PC[i])) << where << " " << problem.channels << " " << i;
  }
}

void ExpectAllMatch(size_t pixels, size_t channels, const char* where) {
  const Problem problem(pixels, channels);
  ExpectMomentsMatch(problem.x_PC, pixels, channels, where);
  ExpectForwardMatches(problem, where);
  ExpectSumsMatch(problem, where);
  ExpectBackwardMatches(problem, where);
}

TEST(GroupNormTest, MatchesFloat64OnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (size_t channels = 1; channels <= 67; ++channels) ExpectAllMatch(3, channels, target);
    ExpectAllMatch(1, 19, target);
    ExpectAllMatch(33, 300, target);  // more than a block, both ways
    ExpectAllMatch(1000, 5, target);
  });
}

TEST(GroupNormTest, DeviationsSurviveALargeMean) {
  ForEachTarget([](const char* target) {
    Floats x_PC = Random(500 * 9, 8);
    for (float& x : x_PC) x = 1000 + x;
    Doubles mean_C(9), square_C(9);
    ChannelMoments(x_PC.data(), 500, 9, mean_C.data(), square_C.data());
    for (size_t c = 0; c < 9; ++c) {
      double mean = 0, square = 0;
      for (size_t i = c; i < x_PC.size(); i += 9) mean += x_PC[i] / 500.0;
      for (size_t i = c; i < x_PC.size(); i += 9) square += (x_PC[i] - mean) * (x_PC[i] - mean);
      EXPECT_NEAR(mean_C[c], mean, 1e-8 * mean) << target;
      EXPECT_NEAR(square_C[c], square, 1e-6 * square) << target;
    }
  });
}

TEST(GroupNormTest, InPlaceGivesTheSameBits) {
  const Problem problem(7, 37);
  Floats apart(7 * 37), in_place = problem.x_PC;
  NormSilu(problem.x_PC.data(), 7, 37, problem.affine(), apart.data());
  NormSilu(in_place.data(), 7, 37, problem.affine(), in_place.data());
  EXPECT_EQ(apart, in_place);
  in_place = problem.dy_PC;
  NormSiluBackward(problem.dy_PC.data(), problem.x_PC.data(), 7, 37, problem.affine(),
                   {problem.level_C.data(), problem.pull_C.data()}, apart.data());
  NormSiluBackward(in_place.data(), problem.x_PC.data(), 7, 37, problem.affine(),
                   {problem.level_C.data(), problem.pull_C.data()}, in_place.data());
  EXPECT_EQ(apart, in_place);
}

TEST(GroupNormTest, NanStaysInItsChannelAndLargeValuesAreFinite) {
  ForEachTarget([](const char* target) {
    Problem problem(4, 21);
    problem.x_PC[2 * 21 + 6] = NAN;
    Doubles mean_C(21), square_C(21);
    Floats y_PC(problem.x_PC.size());
    ChannelMoments(problem.x_PC.data(), 4, 21, mean_C.data(), square_C.data());
    NormSilu(problem.x_PC.data(), 4, 21, problem.affine(), y_PC.data());
    for (size_t c = 0; c < 21; ++c) EXPECT_EQ(std::isnan(square_C[c]), c == 6) << target;
    for (size_t i = 0; i < y_PC.size(); ++i) EXPECT_EQ(std::isnan(y_PC[i]), i == 2 * 21 + 6);
    const Floats ones(2, 1.0f), zeros(2, 0.0f), x = {-1e30f, 1e30f};
    NormSilu(x.data(), 1, 2, {zeros.data(), ones.data(), zeros.data()}, y_PC.data());
    EXPECT_EQ(y_PC[0], 0.0f) << target;
    EXPECT_EQ(y_PC[1], 1e30f) << target;
  });
}

}  // namespace
}  // namespace lwm::kernels
