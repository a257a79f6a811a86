#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/example_source.h"
#include "lwm/data/packing.h"
#include "lwm/data/unit_order.h"

namespace lwm::data {

// Where a stream of training rows stands: everything below `position` of the endless unit sequence
// has been drawn, `held` waits in the packer.
struct StreamState {
  int64_t position = 0;
  std::vector<Packer::Held> held;  // id = number in the endless sequence
};

Json StreamStateToJson(const StreamState& state);
// Throws Error(kCorruptData).
StreamState ParseStreamState(const Json& json);

// The endless training rows of one source. Not for concurrent use.
class RowStream {
 public:
  RowStream(std::shared_ptr<const ExampleSource> source, const UnitOrder& order,
            const PackingConfig& packing);

  // Throws what reading throws, and Error(kInvalidArgument) when two epochs (with weights: a great
  // many) had nothing to learn.
  Row Next();

  StreamState state() const;
  void Restore(const StreamState& state);

 private:
  std::optional<Example> Read(int64_t id) const;  // nothing: this epoch passes over the unit

  std::shared_ptr<const ExampleSource> source_;
  UnitOrder order_;
  PackingConfig packing_;
  Packer packer_;
  int64_t position_ = 0;
  int64_t fruitless_ = 0;  // examples in a row that had nothing to learn
};

}  // namespace lwm::data
