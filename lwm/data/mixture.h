#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lwm::data {

// Chooses the source of each row, so that the sources keep to their shares. Rows of all data groups
// are numbered together: one step of all groups keeps to the shares as well as it can.
class Mixture {
 public:
  // weights: positive, one per source; a share is a weight over their sum. rank: of `size` groups.
  Mixture(const std::vector<double>& weights, int rank, int size);

  // The source of this group's next row. Cost: size * sources.
  size_t Next();

  const std::vector<double>& shares() const { return share_; }
  const std::vector<int64_t>& rows() const { return rows_; }  // so far, of each source, all groups
  void Restore(const std::vector<int64_t>& rows) { rows_ = rows; }

 private:
  size_t MostBehind() const;

  int rank_, size_;
  std::vector<double> share_;
  std::vector<int64_t> rows_;
};

}  // namespace lwm::data
