#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lwm/data/row.h"

namespace lwm::data {

enum class PackingPolicy {
  kMasked,       // several examples per row, each attends to itself only; rows filled best-fit
  kConcatenate,  // examples joined end to end and cut every S tokens; a row is one segment
  kPad,          // one example per row
};

// The divisor of a loss weight.
enum class LossNormaliser {
  kExample,  // the weights of its own example: every example counts 1, as in the padded regime
  kRow,      // the weights of its row: every row counts 1, every token of it the same
};

struct PackingConfig {
  int64_t row_tokens = 0;  // S
  PackingPolicy policy = PackingPolicy::kMasked;
  // Unset: kRow for kConcatenate, else kExample. Books cut into rows want kRow: with kExample the
  // short last piece of a book would weigh as much as a full row.
  std::optional<LossNormaliser> normaliser;
  bool refuse_long_examples = false;  // instead of splitting (kPad: cutting) what exceeds a row
  int32_t pad_token = 0;
  int64_t buffer_tokens = 1 << 18;  // kMasked: what best fit chooses from; at least 4 rows are held
};

// "masked", "concatenate", "pad"; "example", "row". Throw Error(kInvalidArgument) naming the
// nearest.
PackingPolicy ParsePackingPolicy(const std::string& name);
LossNormaliser ParseLossNormaliser(const std::string& name);

// Throws Error(kInvalidArgument): row_tokens out of range, or above model_tokens, the longest
// sequence of the model (0 = unknown).
void ValidatePacking(const PackingConfig& config, int64_t model_tokens);

// Whether rows of an example's tokens have anything to learn: a token that it is to predict, for
// kPad one within the first row.
bool HasTarget(const Example& example, const PackingConfig& config);

// Fills rows from a stream of examples. Deterministic: rows depend only on the config and on the
// examples in the order they were added.
//
// Loss weights. With kExample a target of example e weighs its loss weight / the sum over the
// targets of e that have the same modality, so that the text targets of an example sum to 1 and so
// do its vision targets (of an example that was split, those of each part); with kRow the same over
// the row. `examples` counts what has at least one target. A target is the token after it in the
// same segment; the last token of a segment has one only where its example was cut from a longer
// one. Targets with loss weight 0 are kNoTarget. Padding is a segment of its own at the row's end.
//
//   Packer packer(config);
//   while (more) { while (packer.wants_more()) packer.Add(example, id); row = packer.NextRow(); }
//   while (auto row = packer.Flush()) ...
class Packer {
 public:
  explicit Packer(const PackingConfig& config);

  // State of an example that a saved run needs to fill the packer again: the id given to Add, and
  // the range of its tokens that has not been put in a row yet.
  struct Held {
    int64_t id;
    int64_t begin, end;
    bool operator==(const Held&) const = default;
  };

  // True until NextRow may be called.
  bool wants_more() const;
  // Takes an example; empty ones and ones of one token with nothing to predict are dropped. `id` is
  // the caller's. Throws Error(kInvalidArgument) naming example.source when it exceeds a row and
  // refuse_long_examples is set.
  void Add(Example example, int64_t id = 0);
  // A full row. Requires !wants_more().
  Row NextRow();
  // A row of what is left, padded; nothing when the packer is empty.
  std::optional<Row> Flush();

  size_t size() const { return waiting_.size(); }  // examples, or parts of them, that wait

  // The examples, or parts of them, that wait, oldest first. Passing them in this order to AddHeld
  // of an empty packer with the same config, each with its whole example, restores the state.
  std::vector<Held> held() const;
  void AddHeld(std::shared_ptr<const Example> example, const Held& held);

 private:
  struct Part {
    std::shared_ptr<const Example> example;
    Held held;  // its tokens [begin, end) are still to be placed
  };
  int64_t Take(int64_t arrival, int64_t limit, std::vector<Part>& row);
  std::vector<Part> Choose();
  Row Build(const std::vector<Part>& parts) const;

  PackingConfig config_;
  std::map<int64_t, Part> waiting_;                  // by order of arrival
  std::set<std::pair<int64_t, int64_t>> by_length_;  // (length, -arrival) of all that wait
  int64_t arrivals_ = 0;
  int64_t waiting_tokens_ = 0;
};

}  // namespace lwm::data
