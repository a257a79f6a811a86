#include "lwm/data/row_stream.h"

#include <map>
#include <utility>

#include "lwm/base/error.h"

namespace lwm::data {
namespace {

constexpr const char* kWhere = "data state";
constexpr int64_t kEpochsWithWeights = 20000;  // UnitOrder refuses chances below 1 in 10000

}  // namespace

Json StreamStateToJson(const StreamState& state) {
  Json held = Json::array();
  for (const Packer::Held& part : state.held) held.push_back({part.id, part.begin, part.end});
  return {{"position", state.position}, {"held", held}};
}

StreamState ParseStreamState(const Json& json) {
  StreamState state;
  state.position = JsonGet<int64_t>(json, "position", kWhere);
  for (const auto& part : JsonGet<std::vector<std::vector<int64_t>>>(json, "held", kWhere)) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, part.size() == 3 && part[0] >= 0, kWhere,
                   ": an entry of \"held\" is not [id, begin, end]");
    state.held.push_back({part[0], part[1], part[2]});
  }
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, state.position >= 0, kWhere, ": negative position");
  return state;
}

RowStream::RowStream(std::shared_ptr<const ExampleSource> source, const UnitOrder& order,
                     const PackingConfig& packing)
    : source_(std::move(source)), order_(order), packing_(packing), packer_(packing) {}

std::optional<Example> RowStream::Read(int64_t id) const {
  const UnitVisit visit = order_.TrainVisit(id);
  if (!visit.takes_place) return std::nullopt;
  return source_->Read(visit.unit, visit.epoch);
}

Row RowStream::Next() {
  // Between two visits of the only good unit lie at most all others of two epochs; with weights it
  // may be passed over in most.
  const int64_t epochs = source_->has_weights() ? kEpochsWithWeights : 2;
  while (packer_.wants_more()) {
    const int64_t id = position_++;
    std::optional<Example> example = Read(id);
    if (!example) continue;
    fruitless_ = HasTarget(*example, packing_) ? 0 : fruitless_ + 1;
    packer_.Add(std::move(*example), id);
    LWM_REQUIRE(fruitless_ < epochs * order_.epoch_visits(), "none of ", order_.train_units(),
                " training examples has a token to learn");
  }
  return packer_.NextRow();
}

StreamState RowStream::state() const { return {position_, packer_.held()}; }

void RowStream::Restore(const StreamState& state) {
  packer_ = Packer(packing_);
  std::map<int64_t, std::shared_ptr<const Example>> examples;
  for (const Packer::Held& held : state.held) {
    auto& example = examples[held.id];
    if (!example) example = std::make_shared<const Example>(Read(held.id).value_or(Example()));
    packer_.AddHeld(example, held);
  }
  position_ = state.position;
}

}  // namespace lwm::data
