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

// Packs all held-out units once, the same in every data group; each keeps every size-th row. Groups
// that get a row fewer end with a row of padding, so that all have as many.
class HeldOutRows final : public RowSequence {
 public:
  HeldOutRows(std::vector<HeldOutPart> parts, const PackingConfig& packing, int rank, int size);

  std::optional<Row> Next() override;

 private:
  std::optional<Row> NextOfAll();

  std::vector<HeldOutPart> parts_;
  PackingConfig packing_;
  Packer packer_;
  int64_t rank_, size_;
  size_t part_ = 0, unit_ = 0;
  int64_t rows_ = 0;
  bool padded_ = false;
};

}  // namespace lwm::data
