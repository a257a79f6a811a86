#include "lwm/data/held_out_rows.h"

#include <utility>

namespace lwm::data {

HeldOutRows::HeldOutRows(std::vector<HeldOutPart> parts, const PackingConfig& packing)
    : parts_(std::move(parts)), packer_(packing) {}

std::optional<Row> HeldOutRows::Next() {
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
