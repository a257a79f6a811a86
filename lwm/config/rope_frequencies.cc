#include "lwm/config/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lwm::config {
namespace {

std::vector<double> PlainFrequencies(double theta, int64_t head_dim) {
  std::vector<double> frequency_R(static_cast<size_t>(head_dim / 2));
  for (size_t r = 0; r < frequency_R.size(); ++r)
    frequency_R[r] = std::pow(theta, -2.0 * static_cast<double>(r) / static_cast<double>(head_dim));
  return frequency_R;
}

// Dynamic NTK: the base grows with the length beyond the trained one.
double DynamicTheta(const ModelConfig& config, int64_t tokens) {
  const auto trained = static_cast<double>(config.max_position_embeddings);
  const double length = std::max(static_cast<double>(tokens), trained);
  const auto dim = static_cast<double>(config.head_dim);
  const double factor = config.rope_scaling.factor;
  const double stretch = factor * length / trained - (factor - 1);
  return config.rope_theta * std::pow(stretch, dim / (dim - 2));
}

// The (fractional) pair index whose angle makes `rotations` turns over the trained length.
double YarnPairOfRotations(const ModelConfig& config, double rotations) {
  const double original = config.rope_scaling.original_max_position_embeddings;
  const double length =
      original > 0 ? original : static_cast<double>(config.max_position_embeddings);
  return static_cast<double>(config.head_dim) *
         std::log(length / (rotations * 2 * std::numbers::pi)) / (2 * std::log(config.rope_theta));
}

// YaRN (Peng et al. 2023): fast pairs keep their frequency, slow pairs are divided by the factor, a
// linear ramp over the pair index lies between.
void ApplyYarn(const ModelConfig& config, std::vector<double>& frequency_R) {
  const RopeScaling& scaling = config.rope_scaling;
  double low = YarnPairOfRotations(config, scaling.beta_fast);
  double high = YarnPairOfRotations(config, scaling.beta_slow);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(config.head_dim - 1));
  if (low == high) high += 0.001;
  for (size_t r = 0; r < frequency_R.size(); ++r) {
    const double ramp = std::clamp((static_cast<double>(r) - low) / (high - low), 0.0, 1.0);
    frequency_R[r] *= (1 - ramp) + ramp / scaling.factor;
  }
}

double YarnAttentionFactor(const RopeScaling& scaling) {
  if (scaling.attention_factor > 0) return scaling.attention_factor;
  return scaling.factor > 1 ? 0.1 * std::log(scaling.factor) + 1 : 1;
}

void ApplyLlama3(const RopeScaling& scaling, std::vector<double>& frequency_R) {
  for (double& frequency : frequency_R) {
    const double turns =
        scaling.original_max_position_embeddings * frequency / (2 * std::numbers::pi);
    const double smooth = std::clamp(
        (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor),
        0.0, 1.0);
    frequency *= (1 - smooth) / scaling.factor + smooth;
  }
}

}  // namespace

RopeFrequencies ComputeRopeFrequencies(const ModelConfig& config, int64_t tokens) {
  const RopeScaling& scaling = config.rope_scaling;
  const bool dynamic = scaling.type == RopeScaling::Type::kDynamic;
  const double theta = dynamic ? DynamicTheta(config, tokens) : config.rope_theta;
  RopeFrequencies result{PlainFrequencies(theta, config.head_dim), 1};
  switch (scaling.type) {
    case RopeScaling::Type::kDefault:
    case RopeScaling::Type::kDynamic:
      break;
    case RopeScaling::Type::kLinear:
      for (double& frequency : result.inverse_frequency_R) frequency /= scaling.factor;
      break;
    case RopeScaling::Type::kYarn:
      ApplyYarn(config, result.inverse_frequency_R);
      result.attention_factor = YarnAttentionFactor(scaling);
      break;
    case RopeScaling::Type::kLlama3:
      ApplyLlama3(scaling, result.inverse_frequency_R);
      break;
  }
  return result;
}

}  // namespace lwm::config
