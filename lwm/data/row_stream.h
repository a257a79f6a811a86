#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/example_source.h"
#include "lwm/data/packing.h"
#include "lwm/data/unit_order.h"

namespace lwm::data {

// Where a stream of training rows stands: everything below `position` of this group's share of the
// endless unit sequence has been drawn, `pending` (numbers of that sequence) is to be drawn first,
// `held` waits in the packer.
struct StreamState {
  int64_t position = 0;
  std::vector<int64_t> pending;
  std::vector<Packer::Held> held;  // id = number in the endless sequence
};

Json StreamStateToJson(const StreamState& state);
// Throws Error(kCorruptData).
StreamState ParseStreamState(const Json& json);

// The states of all groups of an old division, redistributed: group `rank` of `size` gets its share
// of what waited, and goes on where the furthest group stood. Nothing is lost or repeated.
StreamState Redistribute(const std::vector<StreamState>& groups, int rank, int size);

// The endless training rows of one source for one group of ranks: the group takes the numbers rank,
// rank + size, ... of UnitOrder::TrainVisit. Not for concurrent use.
class RowStream {
 public:
  RowStream(std::shared_ptr<const ExampleSource> source, const UnitOrder& order,
            const PackingConfig& packing, int rank, int size);

  // Throws what reading throws, and Error(kInvalidArgument) when two epochs (with weights: a great
  // many) had nothing to learn.
  Row Next();

  StreamState state() const;
  void Restore(const StreamState& state);

 private:
  int64_t Draw();
  std::optional<Example> Read(int64_t id) const;  // nothing: this epoch passes over the unit

  std::shared_ptr<const ExampleSource> source_;
  UnitOrder order_;
  PackingConfig packing_;
  int64_t rank_, size_;
  Packer packer_;
  int64_t position_ = 0;
  int64_t fruitless_ = 0;  // examples in a row that had nothing to learn
  std::deque<int64_t> pending_;
};

}  // namespace lwm::data
