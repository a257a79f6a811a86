#include "lwm/data/held_out_rows.h"

#include <utility>

namespace lwm::data {

HeldOutRows::HeldOutRows(std::vector<HeldOutPart> parts, const PackingConfig& packing, int rank,
                         int size)
    : parts_(std::move(parts)), packing_(packing), packer_(packing), rank_(rank), size_(size) {}

std::optional<Row> HeldOutRows::Next() {
  while (true) {
    std::optional<Row> row = NextOfAll();
    if (!row) break;
    if (rows_++ % size_ == rank_) return row;
  }
  const int64_t missing = (size_ - rows_ % size_) % size_;
  if (padded_ || rank_ < size_ - missing) return std::nullopt;
  padded_ = true;
  return Packer::Padding(packing_);
}

std::optional<Row> HeldOutRows::NextOfAll() {
  for (; part_ < parts_.size(); ++part_, unit_ = 0) {
    const HeldOutPart& part = parts_[part_];
    while (packer_.wants_more() && unit_ < part.units.size())
      packer_.Add(part.source->Read(part.units[unit_++], ExampleSource::kHeldOut));
    if (!packer_.wants_more()) return packer_.NextRow();
    if (auto row = packer_.Flush()) return row;
  }
  return std::nullopt;
}

}  // namespace lwm::data
