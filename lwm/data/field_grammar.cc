#include "lwm/data/field_grammar.h"

#include <string_view>

#include "lwm/base/error.h"
#include "lwm/data/python_random.h"

namespace lwm::data {
namespace {

// Builds one example, field by field.
class ExampleBuilder {
 public:
  ExampleBuilder(const Json& object, const std::string& where, const Tokenizer& tokenizer,
                 const FieldGrammar& grammar)
      : object_(object), where_(where), tokenizer_(tokenizer), grammar_(grammar) {
    example_.source = where;
  }

  Example Build(const std::string& fields) {
    if (grammar_.add_bos) AddSpecial(tokenizer_.bos_id(), "BOS", 0);
    std::string_view rest = fields;
    for (bool first = true;; first = false) {
      const size_t comma = rest.find(',');
      AddField(std::string(rest.substr(0, comma)), first);
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
    if (grammar_.add_eos) AddSpecial(tokenizer_.eos_id(), "EOS", 1);
    return std::move(example_);
  }

 private:
  void AddField(std::string name, bool first) {
    float loss_weight = 1;
    if (name.size() >= 2 && name.front() == '[' && name.back() == ']') {
      name = name.substr(1, name.size() - 2);
      loss_weight = 0;
    }
    if (name == "<|bos|>")
      AddSpecial(tokenizer_.bos_id(), "BOS", loss_weight);
    else if (name == "<|eos|>")
      AddSpecial(tokenizer_.eos_id(), "EOS", loss_weight);
    else if (name.find("vision") != std::string::npos)
      AddVision(name, loss_weight);
    else
      AddText((first ? grammar_.prepend_text : "") + JoinedText(name), loss_weight);
  }

  std::string JoinedText(std::string_view names) {
    std::string text;
    while (true) {
      const size_t plus = names.find('+');
      text += JsonGet<std::string>(object_, std::string(names.substr(0, plus)), where_);
      if (plus == std::string_view::npos) return text;
      text += grammar_.subfield_separator;
      names.remove_prefix(plus + 1);
    }
  }

  void AddVision(const std::string& name, float loss_weight) {
    if (!object_.contains(name)) ThrowJsonField(where_, name, "is missing");
    const Json& codes = object_.at(name);
    if (!codes.is_array()) ThrowJsonField(where_, name, "is no list of vision codes");
    const int64_t frames = static_cast<int64_t>(codes.size()) / grammar_.tokens_per_frame;
    const int64_t kept = grammar_.max_frames > 0 ? std::min(frames, grammar_.max_frames) : frames;
    AddText("<vision>", loss_weight);
    int64_t left = kept;
    for (const int64_t frame : ThinFrames(frames, kept)) {
      for (int64_t i = 0; i < grammar_.tokens_per_frame; ++i)
        Add(Code(codes, frame * grammar_.tokens_per_frame + i, name), 1, loss_weight);
      Add(--left == 0 ? grammar_.eov_code : grammar_.eof_code, 1, loss_weight);
    }
    AddText("</vision>", loss_weight);
  }

  int32_t Code(const Json& codes, int64_t index, const std::string& name) {
    const Json& code = codes.at(static_cast<size_t>(index));
    if (!code.is_number_integer() || code < 0 || code >= grammar_.eof_code)
      ThrowJsonField(where_, name,
                     Cat("has ", code.dump().substr(0, 40), " at index ", index,
                         ", want a code of 0 to ", grammar_.eof_code - 1));
    return code.get<int32_t>();
  }

  void AddText(const std::string& text, float loss_weight) {
    for (const int32_t id : tokenizer_.Encode(text)) Add(id, 0, loss_weight);
  }

  void AddSpecial(int32_t id, const char* name, float loss_weight) {
    LWM_REQUIRE(id >= 0, "the tokenizer has no ", name, " token, which the data asks for");
    Add(id, 0, loss_weight);
  }

  void Add(int32_t token, uint8_t vision, float loss_weight) {
    example_.token_n.push_back(token);
    example_.vision_n.push_back(vision);
    example_.loss_weight_n.push_back(loss_weight);
  }

  const Json& object_;
  const std::string& where_;
  const Tokenizer& tokenizer_;
  const FieldGrammar& grammar_;
  Example example_;
};

std::string ChooseFields(const Json& object, int64_t line_index, const std::string& where,
                         const FieldGrammar& grammar) {
  if (!object.contains("fields")) return grammar.fields.empty() ? "text" : grammar.fields;
  const Json& fields = object.at("fields");
  if (fields.is_string()) return fields.get<std::string>();
  if (!fields.is_array() || fields.empty())
    ThrowJsonField(where, "fields", "is neither a string nor a list of strings");
  const auto size = static_cast<uint32_t>(fields.size());
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, grammar.fields_index < static_cast<int64_t>(size), where,
                 ": fields_index ", grammar.fields_index, " of a list of ", size, " fields");
  const uint32_t index = grammar.fields_index >= 0
                             ? static_cast<uint32_t>(grammar.fields_index)
                             : PythonRandom(static_cast<uint64_t>(line_index)).ChoiceIndex(size);
  if (!fields.at(index).is_string())
    ThrowJsonField(where, "fields", Cat("has no string at index ", index));
  return fields.at(index).get<std::string>();
}

}  // namespace

Example BuildExample(const Json& object, int64_t line_index, const std::string& where,
                     const Tokenizer& tokenizer, const FieldGrammar& grammar) {
  const std::string fields = ChooseFields(object, line_index, where, grammar);
  return ExampleBuilder(object, where, tokenizer, grammar).Build(fields);
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
