#include "lwm/data/row_stream.h"

#include <algorithm>
#include <map>
#include <utility>

#include "lwm/base/error.h"

namespace lwm::data {
namespace {

constexpr const char* kWhere = "data state";
constexpr int64_t kEpochsWithWeights = 20000;  // UnitOrder refuses chances below 1 in 10000

template <class Value>
std::vector<Value> Share(const std::vector<Value>& all, int rank, int size) {
  std::vector<Value> share;
  for (size_t i = static_cast<size_t>(rank); i < all.size(); i += static_cast<size_t>(size))
    share.push_back(all[i]);
  return share;
}

}  // namespace

Json StreamStateToJson(const StreamState& state) {
  Json held = Json::array();
  for (const Packer::Held& part : state.held) held.push_back({part.id, part.begin, part.end});
  return {{"position", state.position}, {"pending", state.pending}, {"held", held}};
}

StreamState ParseStreamState(const Json& json) {
  StreamState state;
  state.position = JsonGet<int64_t>(json, "position", kWhere);
  state.pending = JsonGet<std::vector<int64_t>>(json, "pending", kWhere);
  for (const auto& part : JsonGet<std::vector<std::vector<int64_t>>>(json, "held", kWhere)) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, part.size() == 3 && part[0] >= 0, kWhere,
                   ": an entry of \"held\" is not [id, begin, end]");
    state.held.push_back({part[0], part[1], part[2]});
  }
  bool good = state.position >= 0;
  for (const int64_t id : state.pending) good = good && id >= 0;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, good, kWhere, ": negative position");
  return state;
}

StreamState Redistribute(const std::vector<StreamState>& groups, int rank, int size) {
  const auto old_size = static_cast<int64_t>(groups.size());
  int64_t furthest = 0;
  for (const StreamState& group : groups) furthest = std::max(furthest, group.position);
  std::vector<int64_t> pending;
  std::vector<Packer::Held> held;
  for (int64_t r = 0; r < old_size; ++r) {
    const StreamState& group = groups[static_cast<size_t>(r)];
    pending.insert(pending.end(), group.pending.begin(), group.pending.end());
    for (int64_t p = group.position; p < furthest; ++p) pending.push_back(p * old_size + r);
    held.insert(held.end(), group.held.begin(), group.held.end());
  }
  // The new division starts at the first multiple of its size; what lies between is pending too.
  const int64_t drawn = furthest * old_size;
  StreamState state;
  state.position = (drawn + size - 1) / size;
  for (int64_t id = drawn; id < state.position * size; ++id) pending.push_back(id);
  std::sort(pending.begin(), pending.end());
  std::stable_sort(held.begin(), held.end(), [](const auto& a, const auto& b) {
    return std::pair(a.id, a.begin) < std::pair(b.id, b.begin);
  });
  state.pending = Share(pending, rank, size);
  state.held = Share(held, rank, size);
  return state;
}

RowStream::RowStream(std::shared_ptr<const ExampleSource> source, const UnitOrder& order,
                     const PackingConfig& packing, int rank, int size)
    : source_(std::move(source)),
      order_(order),
      packing_(packing),
      rank_(rank),
      size_(size),
      packer_(packing) {}

int64_t RowStream::Draw() {
  if (pending_.empty()) return position_++ * size_ + rank_;
  const int64_t id = pending_.front();
  pending_.pop_front();
  return id;
}

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
    const int64_t id = Draw();
    std::optional<Example> example = Read(id);
    if (!example) continue;
    fruitless_ = HasTarget(*example, packing_) ? 0 : fruitless_ + 1;
    packer_.Add(std::move(*example), id);
    LWM_REQUIRE(fruitless_ < epochs * order_.epoch_visits(), "none of ", order_.train_units(),
                " training examples has a token to learn");
  }
  return packer_.NextRow();
}

StreamState RowStream::state() const {
  return {position_, {pending_.begin(), pending_.end()}, packer_.held()};
}

void RowStream::Restore(const StreamState& state) {
  packer_ = Packer(packing_);
  std::map<int64_t, std::shared_ptr<const Example>> examples;
  for (const Packer::Held& held : state.held) {
    auto& example = examples[held.id];
    if (!example) example = std::make_shared<const Example>(Read(held.id).value_or(Example()));
    packer_.AddHeld(example, held);
  }
  position_ = state.position;
  pending_.assign(state.pending.begin(), state.pending.end());
}

}  // namespace lwm::data
