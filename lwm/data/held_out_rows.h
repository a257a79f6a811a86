#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "lwm/data/example_source.h"
#include "lwm/data/loader.h"
#include "lwm/data/packing.h"

namespace lwm::data {

// Units of one source that are held out.
struct HeldOutPart {
  std::shared_ptr<const ExampleSource> source;
  std::vector<int64_t> units;
};

// The rows of all held-out units, packed once.
class HeldOutRows final : public RowSequence {
 public:
  HeldOutRows(std::vector<HeldOutPart> parts, const PackingConfig& packing);

  std::optional<Row> Next() override;

 private:
  std::vector<HeldOutPart> parts_;
  Packer packer_;
  size_t part_ = 0, unit_ = 0;
};

}  // namespace lwm::data
