#include "lwm/data/mixture.h"

#include <numeric>

namespace lwm::data {

Mixture::Mixture(const std::vector<double>& weights) : rows_(weights.size(), 0) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (const double weight : weights) share_.push_back(weight / sum);
}

size_t Mixture::Next() {
  const size_t chosen = MostBehind();
  ++rows_[chosen];
  return chosen;
}

size_t Mixture::MostBehind() const {
  int64_t total = 1;
  for (const int64_t rows : rows_) total += rows;
  const auto behind = [&](size_t s) {
    return share_[s] * static_cast<double>(total) - static_cast<double>(rows_[s]);
  };
  size_t most = 0;
  for (size_t s = 1; s < rows_.size(); ++s)
    if (behind(s) > behind(most)) most = s;
  return most;
}

}  // namespace lwm::data
