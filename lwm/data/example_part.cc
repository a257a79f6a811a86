#include "lwm/data/example_part.h"

#include <algorithm>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/random.h"
#include "lwm/data/field_grammar.h"
#include "lwm/data/tokenizer.h"
#include "lwm/data/vision_field.h"

namespace lwm::data {
namespace {

using Kind = ExamplePart::Kind;

class ExampleBuilder {
 public:
  ExampleBuilder(const LinePlace& place, const Tokenizer& tokenizer, const FieldGrammar& grammar)
      : place_(place), tokenizer_(tokenizer), grammar_(grammar) {
    example_.source = place.where;
  }

  void Add(const ExamplePart& part) {
    switch (part.kind) {
      case Kind::kText:
        return AddText(part.text, part.loss_weight);
      case Kind::kVision:
        return AddVision(part);
      case Kind::kBos:
        return AddSpecial(tokenizer_.bos_id(), "BOS", part.loss_weight);
      case Kind::kEos:
        return AddSpecial(tokenizer_.eos_id(), "EOS", part.loss_weight);
    }
  }

  Example Take() { return std::move(example_); }

 private:
  void AddVision(const ExamplePart& part) {
    const std::vector<int32_t> code_n = VisionCodes(*part.vision, part.field, place_, grammar_);
    const int64_t size = grammar_.tokens_per_frame;
    const int64_t frames = static_cast<int64_t>(code_n.size()) / size;
    const int64_t kept = grammar_.max_frames > 0 ? std::min(frames, grammar_.max_frames) : frames;
    AddText("<vision>", part.loss_weight);
    int64_t left = kept;
    for (const int64_t frame : ThinFrames(frames, kept)) {
      for (int64_t i = frame * size; i < (frame + 1) * size; ++i)
        AddToken(code_n[static_cast<size_t>(i)], 1, part.loss_weight);
      AddToken(--left == 0 ? grammar_.eov_code : grammar_.eof_code, 1, part.loss_weight);
    }
    AddText("</vision>", part.loss_weight);
  }

  void AddText(const std::string& text, float loss_weight) {
    for (const int32_t id : tokenizer_.Encode(text)) AddToken(id, 0, loss_weight);
  }

  void AddSpecial(int32_t id, const char* name, float loss_weight) {
    LWM_REQUIRE(id >= 0, "the tokenizer has no ", name, " token, which the data asks for");
    AddToken(id, 0, loss_weight);
  }

  void AddToken(int32_t token, uint8_t vision, float loss_weight) {
    example_.token_n.push_back(token);
    example_.vision_n.push_back(vision);
    example_.loss_weight_n.push_back(loss_weight);
  }

  const LinePlace& place_;
  const Tokenizer& tokenizer_;
  const FieldGrammar& grammar_;
  Example example_;
};

// How many parts stand before the last learned vision part; 0 without one.
size_t PartsBeforeLearnedVision(const std::vector<ExamplePart>& parts) {
  size_t before = 0;
  for (size_t i = 0; i < parts.size(); ++i)
    if (parts[i].kind == Kind::kVision && parts[i].loss_weight > 0) before = i;
  return before;
}

bool DrawsDrop(const LinePlace& place, const FieldGrammar& grammar) {
  return place.draw_key && grammar.drop_text > 0 &&
         Random(DeriveKey(*place.draw_key, 1)).Uniform() < grammar.drop_text;
}

}  // namespace

Example BuildFromParts(const std::vector<ExamplePart>& parts, const LinePlace& place,
                       const Tokenizer& tokenizer, const FieldGrammar& grammar) {
  ExampleBuilder builder(place, tokenizer, grammar);
  const size_t dropped = DrawsDrop(place, grammar) ? PartsBeforeLearnedVision(parts) : 0;
  if (grammar.add_bos && tokenizer.leading_bos())
    builder.Add({.kind = Kind::kBos, .loss_weight = 0});
  for (size_t i = 0; i < parts.size(); ++i)
    if (i >= dropped || !parts[i].is_condition) builder.Add(parts[i]);
  if (grammar.add_eos) builder.Add({.kind = Kind::kEos});
  return builder.Take();
}

}  // namespace lwm::data
