#include "lwm/data/field_grammar.h"

#include <string_view>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/random.h"
#include "lwm/data/chat_turns.h"
#include "lwm/data/example_part.h"
#include "lwm/data/line_form.h"
#include "lwm/data/python_random.h"
#include "lwm/data/vision_field.h"

namespace lwm::data {
namespace {

using Kind = ExamplePart::Kind;

std::string JoinedText(const Json& object, std::string_view names, const std::string& where,
                       const FieldGrammar& grammar) {
  std::string text;
  while (true) {
    const size_t plus = names.find('+');
    const std::string name(names.substr(0, plus));
    text += JsonGet<std::string>(object, name, where);
    RequireNoNul(text, where, name);
    if (plus == std::string_view::npos) return text;
    text += grammar.subfield_separator;
    names.remove_prefix(plus + 1);
  }
}

ExamplePart ParseField(const Json& object, std::string name, const std::string& where,
                       const FieldGrammar& grammar) {
  ExamplePart part;
  if (name.size() >= 2 && name.front() == '[' && name.back() == ']') {
    name = name.substr(1, name.size() - 2);
    part.loss_weight = 0;
  }
  if (name == "<|bos|>") {
    part.kind = Kind::kBos;
  } else if (name == "<|eos|>") {
    part.kind = Kind::kEos;
  } else if (IsVisionField(name)) {
    if (!object.contains(name)) ThrowJsonField(where, name, "is missing");
    part.kind = Kind::kVision;
    part.vision = &object.at(name);
    part.field = name;
  } else {
    part.text = JoinedText(object, name, where, grammar);
    part.is_condition = true;
  }
  return part;
}

std::vector<ExamplePart> ParseFields(const Json& object, const std::string& fields,
                                     const std::string& where, const FieldGrammar& grammar) {
  std::vector<ExamplePart> parts;
  std::string_view rest = fields;
  while (true) {
    const size_t comma = rest.find(',');
    parts.push_back(ParseField(object, std::string(rest.substr(0, comma)), where, grammar));
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (parts[0].kind == Kind::kText) parts[0].text = grammar.prepend_text + parts[0].text;
  return parts;
}

// The alternatives of a line, at least one.
std::vector<std::string> Alternatives(const Json& object, const std::string& where,
                                      const FieldGrammar& grammar) {
  if (!object.contains("fields"))
    return grammar.fields.empty() ? std::vector<std::string>{"text"} : grammar.fields;
  const Json& fields = object.at("fields");
  if (fields.is_string()) return {fields.get<std::string>()};
  if (!fields.is_array() || fields.empty())
    ThrowJsonField(where, "fields", "is neither a string nor a list of strings");
  std::vector<std::string> alternatives;
  for (const Json& entry : fields) {
    if (!entry.is_string())
      ThrowJsonField(where, "fields", Cat("has no string at index ", alternatives.size()));
    alternatives.push_back(entry.get<std::string>());
  }
  LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                 grammar.fields_index < static_cast<int64_t>(alternatives.size()), where,
                 ": fields_index ", grammar.fields_index, " of a list of ", alternatives.size(),
                 " fields");
  return alternatives;
}

std::string ChooseFields(const Json& object, const LinePlace& place, const FieldGrammar& grammar) {
  const std::vector<std::string> alternatives = Alternatives(object, place.where, grammar);
  const size_t size = alternatives.size();
  if (size == 1) return alternatives[0];
  if (grammar.fields_index >= 0)
    return alternatives[std::min(static_cast<size_t>(grammar.fields_index), size - 1)];
  if (grammar.order_by_visit && place.draw_key)
    return alternatives[Random(DeriveKey(*place.draw_key, 0)).Below(size)];
  PythonRandom random(static_cast<uint64_t>(place.index));
  return alternatives[random.ChoiceIndex(static_cast<uint32_t>(size))];
}

}  // namespace

void UseMedia(FieldGrammar& grammar, std::shared_ptr<data::CodeCache> media) {
  grammar.tokens_per_frame = media->codes_per_frame();
  grammar.eof_code = static_cast<int32_t>(media->codebook_size());
  grammar.eov_code = grammar.eof_code + 1;
  grammar.whole_frames = true;
  grammar.media = std::move(media);
}

Example BuildExample(const Json& object, const LinePlace& place, const Tokenizer& tokenizer,
                     const FieldGrammar& grammar) {
  if (const std::string key = ConversationKey(object, !grammar.fields.empty()); !key.empty()) {
    FieldGrammar chat = grammar;
    chat.add_eos = false;  // every answer ends with its own
    return BuildFromParts(ChatParts(object, key, place.where, tokenizer), place, tokenizer, chat);
  }
  if (grammar.fields.empty()) RequireKnownForm(object, place.where);
  const std::string fields = ChooseFields(object, place, grammar);
  return BuildFromParts(ParseFields(object, fields, place.where, grammar), place, tokenizer,
                        grammar);
}

std::vector<int64_t> ThinFrames(int64_t frames, int64_t kept) {
  std::vector<int64_t> chosen;
  const double step =
      kept > 1 ? static_cast<double>(frames - 1) / static_cast<double>(kept - 1) : 0.0;
  for (int64_t i = 0; i < kept; ++i)
    chosen.push_back(i > 0 && i + 1 == kept ? frames - 1
                                            : static_cast<int64_t>(static_cast<double>(i) * step));
  return chosen;
}

}  // namespace lwm::data
