#include "lwm/data/packing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/text.h"

namespace lwm::data {
namespace {

constexpr int64_t kMinBufferRows = 4;

struct Target {
  int32_t token = kNoTarget;
  uint8_t vision = 0;
  float loss_weight = 0;
};

// The target of token i of an example.
Target TargetAfter(const Example& example, int64_t i) {
  const auto next = static_cast<size_t>(i) + 1;
  if (next < example.token_n.size())
    return {example.token_n[next], example.vision_n[next], example.loss_weight_n[next]};
  return {example.next_token, example.next_vision, example.next_loss_weight};
}

void SetTarget(Row& row, size_t at, const Target& target) {
  const bool learns = target.token != kNoTarget && target.loss_weight > 0;
  row.target_S[at] = learns ? target.token : kNoTarget;
  row.target_vision_S[at] = learns ? target.vision : 0;
  row.weight_S[at] = learns ? target.loss_weight : 0;
}

// Divides the loss weights of [begin, end) by their sum, for each modality alone. True when there
// is a target.
bool Normalise(Row& row, size_t begin, size_t end) {
  double sum[2] = {0, 0};  // text, vision
  for (size_t i = begin; i < end; ++i)
    sum[row.target_vision_S[i]] += static_cast<double>(row.weight_S[i]);
  for (size_t i = begin; i < end; ++i)
    if (row.weight_S[i] > 0)
      row.weight_S[i] =
          static_cast<float>(static_cast<double>(row.weight_S[i]) / sum[row.target_vision_S[i]]);
  return sum[0] > 0 || sum[1] > 0;
}

void SetSegment(Row& row, size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) {
    row.position_S[i] = static_cast<int32_t>(i - begin);
    row.begin_S[i] = static_cast<int32_t>(begin);
  }
}

Row EmptyRow(int64_t row_tokens, int32_t pad_token) {
  const auto size = static_cast<size_t>(row_tokens);
  Row row;
  row.token_S.assign(size, pad_token);
  row.vision_S.assign(size, 0);
  row.target_S.assign(size, kNoTarget);
  row.target_vision_S.assign(size, 0);
  row.weight_S.assign(size, 0.0f);
  row.position_S.assign(size, 0);
  row.begin_S.assign(size, 0);
  return row;
}

LossNormaliser NormaliserOf(const PackingConfig& config) {
  if (config.normaliser) return *config.normaliser;
  return config.policy == PackingPolicy::kConcatenate ? LossNormaliser::kRow
                                                      : LossNormaliser::kExample;
}

void CheckExample(const Example& example) {
  const size_t size = example.token_n.size();
  LWM_CHECK(example.vision_n.size() == size && example.loss_weight_n.size() == size, example.source,
            ": ", size, " tokens, ", example.vision_n.size(), " modalities, ",
            example.loss_weight_n.size(), " loss weights");
  for (const uint8_t vision : example.vision_n) LWM_CHECK(vision <= 1, example.source);
  for (const float weight : example.loss_weight_n)
    LWM_CHECK(std::isfinite(weight) && weight >= 0, example.source, ": loss weight ", weight);
}

template <class Value>
Value ParseName(const std::string& what, const std::string& name,
                const std::vector<std::pair<std::string, Value>>& values) {
  std::vector<std::string> known;
  for (const auto& [known_name, value] : values) {
    if (name == known_name) return value;
    known.push_back(known_name);
  }
  const std::string nearest = NearestName(name, known);
  throw Error(ErrorCode::kInvalidArgument,
              Cat("unknown ", what, " '", name, "'; ",
                  nearest.empty() ? Cat("want ", known[0], " or another of ", known.size())
                                  : Cat("did you mean '", nearest, "'?")));
}

}  // namespace

PackingPolicy ParsePackingPolicy(const std::string& name) {
  return ParseName<PackingPolicy>("packing policy", name,
                                  {{"masked", PackingPolicy::kMasked},
                                   {"concatenate", PackingPolicy::kConcatenate},
                                   {"pad", PackingPolicy::kPad}});
}

LossNormaliser ParseLossNormaliser(const std::string& name) {
  return ParseName<LossNormaliser>(
      "loss normaliser", name,
      {{"example", LossNormaliser::kExample}, {"row", LossNormaliser::kRow}});
}

void ValidatePacking(const PackingConfig& config, int64_t model_tokens) {
  constexpr int64_t kMaxRow = std::numeric_limits<int32_t>::max();
  LWM_REQUIRE(config.row_tokens >= 2 && config.row_tokens <= kMaxRow, "row_tokens ",
              config.row_tokens, " is out of range; want 2 to ", kMaxRow);
  LWM_REQUIRE(model_tokens == 0 || config.row_tokens <= model_tokens, "rows of ", config.row_tokens,
              " tokens are longer than the model's max_position_embeddings of ", model_tokens,
              "; shorten the rows or extend the model");
  LWM_REQUIRE(config.buffer_tokens >= 0, "buffer_tokens ", config.buffer_tokens, " is negative");
}

bool HasTarget(const Example& example, const PackingConfig& config) {
  const auto learns = [](float loss_weight) { return loss_weight > 0; };
  const auto& weight_n = example.loss_weight_n;
  const bool next_learns = example.next_token != kNoTarget && learns(example.next_loss_weight);
  if (config.policy == PackingPolicy::kConcatenate)  // the first token is the previous one's target
    return next_learns || std::any_of(weight_n.begin(), weight_n.end(), learns);
  const auto size = static_cast<int64_t>(weight_n.size());
  const bool is_cut = config.policy == PackingPolicy::kPad && size > config.row_tokens;
  if (size < 2) return size == 1 && next_learns;
  const auto end = is_cut ? weight_n.begin() + config.row_tokens + 1 : weight_n.end();
  return std::any_of(weight_n.begin() + 1, end, learns) || (!is_cut && next_learns);
}

Packer::Packer(const PackingConfig& config) : config_(config) { ValidatePacking(config, 0); }

bool Packer::wants_more() const {
  switch (config_.policy) {
    case PackingPolicy::kMasked:
      return waiting_tokens_ < std::max(config_.buffer_tokens, kMinBufferRows * config_.row_tokens);
    case PackingPolicy::kConcatenate:
      return waiting_tokens_ <= config_.row_tokens;  // one more is the last token's target
    case PackingPolicy::kPad:
      return waiting_.empty();
  }
  return false;
}

void Packer::Add(Example example, int64_t id) {
  CheckExample(example);
  const auto size = static_cast<int64_t>(example.token_n.size());
  const bool joined = config_.policy == PackingPolicy::kConcatenate;
  if (size == 0 || (size == 1 && !joined && example.next_token == kNoTarget)) return;
  const int64_t limit = joined ? size : config_.row_tokens;
  LWM_REQUIRE(size <= limit || !config_.refuse_long_examples, example.source, ": an example of ",
              size, " tokens is longer than a row of ", config_.row_tokens,
              "; shorten it, lengthen the rows, or allow splitting");
  const auto shared = std::make_shared<const Example>(std::move(example));
  const int64_t end = config_.policy == PackingPolicy::kPad ? std::min(size, limit) : size;
  for (int64_t begin = 0; begin < end; begin += limit)
    AddHeld(shared, {id, begin, std::min(begin + limit, end)});
}

void Packer::AddHeld(std::shared_ptr<const Example> example, const Held& held) {
  const auto size = static_cast<int64_t>(example->token_n.size());
  LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                 held.begin >= 0 && held.begin < held.end && held.end <= size, example->source,
                 ": saved token range [", held.begin, ", ", held.end, ") of ", size,
                 " tokens; the data is not what it was");
  const int64_t arrival = arrivals_++;
  waiting_tokens_ += held.end - held.begin;
  by_length_.insert({held.end - held.begin, -arrival});
  waiting_.emplace(arrival, Part{std::move(example), held});
}

Row Packer::NextRow() {
  LWM_CHECK(!wants_more(), "the packer wants more examples");
  return Build(Choose());
}

std::optional<Row> Packer::Flush() {
  if (waiting_.empty()) return std::nullopt;
  return Build(Choose());
}

std::vector<Packer::Held> Packer::held() const {
  std::vector<Held> held;
  held.reserve(waiting_.size());
  for (const auto& [arrival, part] : waiting_) held.push_back(part.held);
  return held;
}

// Moves the first `limit` tokens of a waiting part to `row`; what is left keeps its place.
int64_t Packer::Take(int64_t arrival, int64_t limit, std::vector<Part>& row) {
  const auto entry = waiting_.find(arrival);
  Held& held = entry->second.held;
  const int64_t length = held.end - held.begin, taken = std::min(length, limit);
  by_length_.erase({length, -arrival});
  waiting_tokens_ -= taken;
  row.push_back(entry->second);
  row.back().held.end = held.begin + taken;
  held.begin += taken;
  if (taken < length)
    by_length_.insert({length - taken, -arrival});
  else
    waiting_.erase(entry);
  return taken;
}

// The parts of the next row. Masked: the oldest, so that none waits for ever, then each time the
// longest that still fits. Concatenated: in order. Padded: the oldest alone.
std::vector<Packer::Part> Packer::Choose() {
  std::vector<Part> row;
  int64_t room = config_.row_tokens;
  room -= Take(waiting_.begin()->first, room, row);
  if (config_.policy == PackingPolicy::kPad) return row;
  while (room > 0 && !waiting_.empty()) {
    if (config_.policy == PackingPolicy::kConcatenate) {
      room -= Take(waiting_.begin()->first, room, row);
      continue;
    }
    auto after = by_length_.upper_bound({room, std::numeric_limits<int64_t>::max()});
    if (after == by_length_.begin()) break;
    room -= Take(-std::prev(after)->second, room, row);
  }
  return row;
}

Row Packer::Build(const std::vector<Part>& parts) const {
  const bool joined = config_.policy == PackingPolicy::kConcatenate;
  const bool by_row = NormaliserOf(config_) == LossNormaliser::kRow;
  Row row = EmptyRow(config_.row_tokens, config_.pad_token);
  size_t at = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const Example& example = *parts[p].example;
    const size_t begin = at;
    for (int64_t i = parts[p].held.begin; i < parts[p].held.end; ++i, ++at) {
      row.token_S[at] = example.token_n[static_cast<size_t>(i)];
      row.vision_S[at] = example.vision_n[static_cast<size_t>(i)];
      SetTarget(row, at, TargetAfter(example, i));
    }
    const bool ends = static_cast<size_t>(parts[p].held.end) == example.token_n.size();
    if (joined && ends && example.next_token == kNoTarget) {  // the next example follows
      const Part* next = p + 1 < parts.size() ? &parts[p + 1]
                         : waiting_.empty()   ? nullptr
                                              : &waiting_.begin()->second;
      if (next) {
        const auto first = static_cast<size_t>(next->held.begin);
        SetTarget(row, at - 1,
                  {next->example->token_n[first], next->example->vision_n[first],
                   next->example->loss_weight_n[first]});
      }
    }
    if (!joined) SetSegment(row, begin, at);
    if (!by_row) row.examples += Normalise(row, begin, at);
  }
  if (joined) SetSegment(row, 0, at);
  if (by_row) row.examples = Normalise(row, 0, at);
  SetSegment(row, at, row.token_S.size());
  row.padding = static_cast<int64_t>(row.token_S.size() - at);
  return row;
}

}  // namespace lwm::data
