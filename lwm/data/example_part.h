#pragma once

#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/row.h"

namespace lwm::data {

struct FieldGrammar;
struct LinePlace;
class Tokenizer;

// A part of an example before it is encoded.
struct ExamplePart {
  enum class Kind { kText, kVision, kBos, kEos };
  Kind kind = Kind::kText;
  std::string text = {};         // kText: encoded on its own
  const Json* vision = nullptr;  // kVision: as VisionCodes takes it
  std::string field = {};        // kVision: its name, for messages
  float loss_weight = 1;
  bool is_condition = false;  // left out with drop_text when learned vision follows
};

// The tokens of the parts in order, with the grammar's BOS before and EOS after them. Throws as
// BuildExample does.
Example BuildFromParts(const std::vector<ExamplePart>& parts, const LinePlace& place,
                       const Tokenizer& tokenizer, const FieldGrammar& grammar);

}  // namespace lwm::data
