#include "lwm/data/byte_bpe_json.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "lwm/base/error.h"
#include "lwm/base/json.h"

namespace lwm::data {
namespace fs = std::filesystem;

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

constexpr const char* kDigitPattern = R"(\p{N})";
constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kCorruptData,
              Cat(where, ": ", what, "; this program reads byte-level BPE without that"));
}

std::string EscapeRegex(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

// Appends the expressions of one pre-tokenizer.
void ReadPreTokenizer(const Json& json, const std::string& where,
                      std::vector<std::string>& patterns) {
  const auto type = JsonGet<std::string>(json, "type", where);
  if (type == "Sequence") {
    for (const Json& part : JsonGet<std::vector<Json>>(json, "pretokenizers", where))
      ReadPreTokenizer(part, where, patterns);
  } else if (type == "ByteLevel") {
    if (JsonGet<bool>(json, "add_prefix_space", where, true)) Refuse(where, "add_prefix_space");
    if (JsonGet<bool>(json, "use_regex", where, true)) patterns.push_back(kGpt2Pattern);
  } else if (type == "Digits") {
    const bool each = JsonGet<bool>(json, "individual_digits", where, false);
    patterns.push_back(Cat(kDigitPattern, each ? "" : "+"));
  } else if (type == "Split") {
    if (JsonGet<std::string>(json, "behavior", where) != "Isolated" ||
        JsonGet<bool>(json, "invert", where, false))
      Refuse(where, "a Split that is not Isolated");
    const Json pattern = JsonGet<Json>(json, "pattern", where);
    patterns.push_back(pattern.contains("Regex")
                           ? JsonGet<std::string>(pattern, "Regex", where)
                           : EscapeRegex(JsonGet<std::string>(pattern, "String", where)));
  } else {
    Refuse(where, Cat("pre-tokenizer ", type));
  }
}

void SetPiece(ByteBpeVocabulary& vocabulary, int64_t id, const std::string& piece, bool special,
              const std::string& where) {
  constexpr int64_t kMaxPieces = 1 << 24;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, id >= 0 && id < kMaxPieces, where, ": token id ", id);
  const auto at = static_cast<size_t>(id);
  if (at >= vocabulary.piece_V.size()) {
    vocabulary.piece_V.resize(at + 1);
    vocabulary.is_special_V.resize(at + 1, 1);  // a gap in the ids decodes to nothing
  }
  vocabulary.piece_V[at] = piece;
  vocabulary.is_special_V[at] = special;
}

void ReadMerges(const Json& merges, const std::string& where, ByteBpeVocabulary& vocabulary) {
  for (const Json& merge : merges) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      vocabulary.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const std::string text = merge.is_string() ? merge.get<std::string>() : "";
    const size_t space = text.find(' ');
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, space != std::string::npos, where,
                   ": a merge is no pair: ", merge.dump().substr(0, 60));
    vocabulary.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
}

// Refuses keys of `json` that are not in `known`, unless they are null, false, 0 or empty.
void RefuseOthers(const Json& json, const std::string& where, const std::string& part,
                  const std::vector<std::string_view>& known) {
  for (const auto& [key, value] : json.items()) {
    const bool is_known = std::find(known.begin(), known.end(), key) != known.end();
    const bool says_nothing = value.is_null() || value == false || value == "" || value == 0 ||
                              (value.is_structured() && value.empty());
    if (!is_known && !says_nothing)
      Refuse(where, Cat(part, "'s ", key, " = ", value.dump().substr(0, 40)));
  }
}

// The id that config.json names; -1 when there is none.
int32_t IdOfModelConfig(const fs::path& folder, const std::string& key) {
  if (!fs::exists(folder / "config.json")) return -1;
  const Json config = ReadJsonFile(folder / "config.json");
  Json id = config.is_object() ? config.value(key, Json()) : Json();
  if (id.is_array() && !id.empty()) id = Json(id[0]);
  return id.is_number_integer() ? id.get<int32_t>() : -1;
}

// The id of a special token in the pieces of a template.
int32_t TemplateToken(const Json& piece, const Json& processor, const std::string& where) {
  const auto name = JsonGet<std::string>(piece.at("SpecialToken"), "id", where);
  const Json tokens = JsonGet<Json>(processor, "special_tokens", where);
  const auto ids = JsonGet<std::vector<int32_t>>(JsonGet<Json>(tokens, name, where), "ids", where);
  if (ids.size() != 1) Refuse(where, Cat("a template's ", name, " of ", ids.size(), " tokens"));
  return ids[0];
}

// Reads a template post-processor: at most one special token before the text and one after it.
void ReadTemplate(const Json& processor, const std::string& where, ByteBpeVocabulary& vocabulary) {
  bool after_text = false;
  for (const Json& piece : JsonGet<std::vector<Json>>(processor, "single", where)) {
    if (piece.is_object() && piece.contains("Sequence")) {
      after_text = true;
      continue;
    }
    if (!piece.is_object() || !piece.contains("SpecialToken"))
      Refuse(where, Cat("a template with ", piece.dump().substr(0, 40)));
    bool& adds = after_text ? vocabulary.add_eos : vocabulary.add_bos;
    if (adds) Refuse(where, "a template with several special tokens in a row");
    adds = true;
    (after_text ? vocabulary.eos_id : vocabulary.bos_id) = TemplateToken(piece, processor, where);
  }
}

void ReadPostProcessor(const Json& json, const std::string& where, ByteBpeVocabulary& vocabulary) {
  if (json.is_null()) return;
  const auto type = JsonGet<std::string>(json, "type", where);
  if (type == "Sequence") {
    for (const Json& part : JsonGet<std::vector<Json>>(json, "processors", where))
      ReadPostProcessor(part, where, vocabulary);
  } else if (type == "TemplateProcessing") {
    ReadTemplate(json, where, vocabulary);
  } else if (type != "ByteLevel") {
    Refuse(where, Cat("post-processor ", type));
  }
}

void ReadAddedTokens(const Json& json, const std::string& where, ByteBpeVocabulary& vocabulary) {
  for (const Json& token : JsonGet<std::vector<Json>>(json, "added_tokens", where, {})) {
    const auto id = JsonGet<int64_t>(token, "id", where);
    RefuseOthers(token, where, "an added token",
                 {"id", "content", "special", "lstrip", "rstrip", "single_word", "normalized"});
    vocabulary.added.push_back(ParseAddedToken(token, id, where));
    SetPiece(vocabulary, id, vocabulary.added.back().content, vocabulary.added.back().special,
             where);
  }
}

void ReadModel(const Json& model, const std::string& where, ByteBpeVocabulary& vocabulary) {
  const auto type = JsonGet<std::string>(model, "type", where, std::string("BPE"));
  if (type != "BPE") Refuse(where, Cat("model ", type));
  if (JsonGet<bool>(model, "byte_fallback", where, false))
    Refuse(where, "byte_fallback (give the SentencePiece tokenizer.model instead)");
  RefuseOthers(model, where, "model",
               {"type", "vocab", "merges", "ignore_merges", "unk_token", "fuse_unk"});
  vocabulary.ignore_merges = JsonGet<bool>(model, "ignore_merges", where, false);
  const Json vocab = JsonGet<Json>(model, "vocab", where);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, vocab.is_object(), where, ": vocab is no object");
  const auto unknown = JsonGet<std::string>(model, "unk_token", where, std::string());
  for (const auto& [piece, id] : vocab.items()) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, id.is_number_integer(), where, ": id of \"", piece,
                   "\" is no number");
    SetPiece(vocabulary, id.get<int64_t>(), piece, false, where);
    if (piece == unknown && !unknown.empty()) vocabulary.unk_id = id.get<int32_t>();
  }
  ReadMerges(JsonGet<Json>(model, "merges", where), where, vocabulary);
}

// The template that puts BOS before every text and EOS after it, as the vocabulary says; null when
// it says neither.
Json TemplateOf(const ByteBpeVocabulary& vocabulary) {
  const bool bos = vocabulary.add_bos && vocabulary.bos_id >= 0;
  const bool eos = vocabulary.add_eos && vocabulary.eos_id >= 0;
  if (!bos && !eos) return {};
  Json single = Json::array(), pair = Json::array(), tokens = Json::object();
  const auto add_special = [&](Json& list, int32_t id, int type) {
    const std::string& name = vocabulary.piece_V[static_cast<size_t>(id)];
    list.push_back({{"SpecialToken", {{"id", name}, {"type_id", type}}}});
    tokens[name] = {{"id", name}, {"ids", Json::array({id})}, {"tokens", Json::array({name})}};
  };
  const auto add_text = [&](Json& list, const char* name, int type) {
    if (bos) add_special(list, vocabulary.bos_id, type);
    list.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    if (eos) add_special(list, vocabulary.eos_id, type);
  };
  add_text(single, "A", 0);
  add_text(pair, "A", 0);
  add_text(pair, "B", 1);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", tokens}};
}

// Every piece under a name of its own, since a JSON object holds a key once: of pieces that are
// spelled alike the last keeps its name, as in llama.cpp.
std::vector<std::string> NamesApart(const std::vector<std::string>& pieces) {
  std::unordered_map<std::string_view, size_t> keeper;
  for (size_t id = 0; id < pieces.size(); ++id) keeper[pieces[id]] = id;
  std::vector<std::string> names = pieces;
  for (size_t id = 0; id < pieces.size(); ++id)
    if (pieces[id].empty() || keeper.at(pieces[id]) != id)
      names[id] = Cat(pieces[id].empty() ? "[EMPTY_" : "[DUPLICATE_", id, "]");
  return names;
}

Json AddedToJson(const ByteBpeVocabulary& vocabulary, const std::vector<std::string>& names) {
  std::map<int32_t, AddedToken> added;  // in order of their ids
  for (size_t i = 0; i < names.size(); ++i)
    if (const auto id = static_cast<int32_t>(i); vocabulary.is_special_V[i])
      added[id] = {.id = id, .content = names[i], .special = true};
  for (const AddedToken& token : vocabulary.added) added[token.id] = token;
  Json list = Json::array();
  for (const auto& [id, token] : added) list.push_back(ToJson(token, /*with_id=*/true));
  return list;
}

// GGUF's names of the pre-tokenizers that this program knows.
struct PreTokenizer {
  std::string_view name;
  std::vector<std::string> patterns;
  bool ignore_merges = false;
};
const PreTokenizer kPreTokenizers[] = {{"gpt-2", {kGpt2Pattern}},
                                       {"smollm", {kDigitPattern, kGpt2Pattern}},
                                       {"llama-bpe", {kLlama3Pattern}, true},
                                       {"qwen2", {kQwen2Pattern}}};

}  // namespace

std::string GgufPreTokenizer(const ByteBpeVocabulary& vocabulary) {
  for (const PreTokenizer& known : kPreTokenizers)
    if (known.patterns == vocabulary.patterns && known.ignore_merges == vocabulary.ignore_merges)
      return std::string(known.name);
  return "";
}

ByteBpeVocabulary ParseByteBpeJson(const Json& json, const std::string& where) {
  ByteBpeVocabulary vocabulary;
  const Json normalizer = JsonGet<Json>(json, "normalizer", where, Json());
  if (!normalizer.is_null())
    Refuse(where, Cat("a normalizer (", normalizer.dump().substr(0, 40), ")"));
  ReadModel(JsonGet<Json>(json, "model", where), where, vocabulary);
  ReadAddedTokens(json, where, vocabulary);
  ReadPreTokenizer(JsonGet<Json>(json, "pre_tokenizer", where), where, vocabulary.patterns);
  ReadPostProcessor(JsonGet<Json>(json, "post_processor", where, Json()), where, vocabulary);
  RefuseOthers(json, where, "tokenizer.json",
               {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                "post_processor", "decoder", "model"});
  return vocabulary;
}

ByteBpeVocabulary ReadByteBpeJson(const fs::path& file, const TokenizerSettings& settings) {
  const std::string where = file.string();
  ByteBpeVocabulary vocabulary = ParseByteBpeJson(ReadJsonFile(file), where);
  if (settings.add_prefix_space.value_or(false))
    Refuse(where, "tokenizer_config.json's add_prefix_space");
  const auto named = [&](const std::string& name, const char* key) {
    const auto found = std::find(vocabulary.piece_V.begin(), vocabulary.piece_V.end(), name);
    return name.empty() || found == vocabulary.piece_V.end()
               ? IdOfModelConfig(file.parent_path(), key)
               : static_cast<int32_t>(found - vocabulary.piece_V.begin());
  };
  const auto resolve = [&](const std::string& name, const char* key, bool by_template,
                           int32_t& id) {
    const int32_t stated = named(name, key);
    if (by_template && stated >= 0 && stated != id)
      Refuse(where, Cat("a post-processor that adds token ", id, ", while ", key, " is ", stated));
    if (stated >= 0) id = stated;
  };
  resolve(settings.bos_token, "bos_token_id", vocabulary.add_bos && !settings.add_bos,
          vocabulary.bos_id);
  resolve(settings.eos_token, "eos_token_id", vocabulary.add_eos && !settings.add_eos,
          vocabulary.eos_id);
  return vocabulary;
}

std::string ByteBpeToJson(const ByteBpeVocabulary& vocabulary) {
  Json vocab = Json::object(), merges = Json::array(), steps = Json::array();
  const std::vector<std::string> names = NamesApart(vocabulary.piece_V);
  for (size_t id = 0; id < names.size(); ++id) vocab[names[id]] = id;
  for (const auto& [left, right] : vocabulary.merges) merges.push_back(left + " " + right);
  for (const std::string& pattern : vocabulary.patterns)
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", pattern}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  steps.push_back(byte_level);
  const Json unknown =
      vocabulary.unk_id < 0 ? Json() : Json(names[static_cast<size_t>(vocabulary.unk_id)]);
  const Json json = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", AddedToJson(vocabulary, names)},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", steps}}},
                     {"post_processor", TemplateOf(vocabulary)},
                     {"decoder", byte_level},
                     {"model",
                      {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", unknown},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", false},
                       {"byte_fallback", false},
                       {"ignore_merges", vocabulary.ignore_merges},
                       {"vocab", vocab},
                       {"merges", merges}}}};
  return json.dump();
}

ByteBpeVocabulary ByteBpeVocabularyOfGguf(const io::GgufMetadata& metadata) {
  constexpr double kNormal = 1, kUserDefined = 4;
  ByteBpeVocabulary vocabulary;
  vocabulary.piece_V = metadata.Texts("tokenizer.ggml.tokens");
  for (const double type : metadata.Numbers("tokenizer.ggml.token_type"))
    vocabulary.is_special_V.push_back(type != kNormal && type != kUserDefined);
  Json merges = Json::array();
  for (const std::string& merge : metadata.Texts("tokenizer.ggml.merges")) merges.push_back(merge);
  ReadMerges(merges, metadata.where, vocabulary);
  const std::string name = metadata.Text("tokenizer.ggml.pre").value_or("");
  const auto known =
      std::find_if(std::begin(kPreTokenizers), std::end(kPreTokenizers),
                   [&](const PreTokenizer& candidate) { return candidate.name == name; });
  if (known == std::end(kPreTokenizers))
    Refuse(metadata.where, Cat("tokenizer.ggml.pre \"", name, "\""));
  vocabulary.patterns = known->patterns;
  vocabulary.ignore_merges = known->ignore_merges;
  const auto special = [&](const std::string& token) {
    return static_cast<int32_t>(
        metadata.Integer("tokenizer.ggml." + token + "_token_id").value_or(-1));
  };
  vocabulary.bos_id = special("bos");
  vocabulary.eos_id = special("eos");
  vocabulary.unk_id = special("unknown");
  vocabulary.pad_id = special("padding");
  vocabulary.add_bos = metadata.Flag("tokenizer.ggml.add_bos_token").value_or(name == "llama-bpe");
  return vocabulary;
}

}  // namespace lwm::data
