#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lwm::data {

// Chooses the source of each row, so that the sources keep to their shares.
class Mixture {
 public:
  // weights: positive, one per source; a share is a weight over their sum.
  explicit Mixture(const std::vector<double>& weights);

  // The source of the next row.
  size_t Next();

  const std::vector<double>& shares() const { return share_; }
  const std::vector<int64_t>& rows() const { return rows_; }  // so far, of each source
  void Restore(const std::vector<int64_t>& rows) { rows_ = rows; }

 private:
  size_t MostBehind() const;

  std::vector<double> share_;
  std::vector<int64_t> rows_;
};

}  // namespace lwm::data
