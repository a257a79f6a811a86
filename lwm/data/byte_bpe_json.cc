#include "lwm/data/byte_bpe_json.h"

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/base/json.h"

namespace lwm::data {
namespace fs = std::filesystem;

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

constexpr const char* kDigitPattern = R"(\p{N})";

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

// The id of a special token named in tokenizer_config.json ("<s>" or {"content": "<s>"}), or in
// config.json by number; -1 when neither says.
int32_t FindSpecial(const fs::path& folder, const std::string& name,
                    const ByteBpeVocabulary& vocabulary) {
  if (fs::exists(folder / "tokenizer_config.json")) {
    const Json config = ReadJsonFile(folder / "tokenizer_config.json");
    Json token = config.value(name + "_token", Json());
    if (token.is_object()) token = token.value("content", Json());
    const auto found = std::find(vocabulary.piece_V.begin(), vocabulary.piece_V.end(),
                                 token.is_string() ? token.get<std::string>() : "\xFF");
    if (found != vocabulary.piece_V.end())
      return static_cast<int32_t>(found - vocabulary.piece_V.begin());
  }
  if (!fs::exists(folder / "config.json")) return -1;
  Json id = ReadJsonFile(folder / "config.json").value(name + "_token_id", Json());
  if (id.is_array() && !id.empty()) id = Json(id[0]);
  return id.is_number_integer() ? id.get<int32_t>() : -1;
}

// tokenizer_config.json decides; without a word there, a template that begins with a special token.
bool SaysAddBos(const fs::path& folder, const Json& tokenizer) {
  if (fs::exists(folder / "tokenizer_config.json")) {
    const Json add = ReadJsonFile(folder / "tokenizer_config.json").value("add_bos_token", Json());
    if (add.is_boolean()) return add.get<bool>();
  }
  const auto begins_with_special = [](const Json& processor) {
    if (!processor.is_object()) return false;
    const auto single = processor.find("single");
    return single != processor.end() && single->is_array() && !single->empty() &&
           single->front().is_object() && single->front().contains("SpecialToken");
  };
  const auto found = tokenizer.find("post_processor");
  if (found == tokenizer.end() || !found->is_object()) return false;
  if (begins_with_special(*found)) return true;
  const auto parts = found->find("processors");
  return parts != found->end() && parts->is_array() &&
         std::any_of(parts->begin(), parts->end(), begins_with_special);
}

// The template that puts BOS before every text.
Json BosTemplate(const std::string& bos, int32_t id) {
  const auto special = [&](int type) {
    return Json{{"SpecialToken", {{"id", bos}, {"type_id", type}}}};
  };
  const auto sequence = [](const char* name, int type) {
    return Json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  const Json entry = {{"id", bos}, {"ids", Json::array({id})}, {"tokens", Json::array({bos})}};
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({special(0), sequence("A", 0)})},
          {"pair", Json::array({special(0), sequence("A", 0), special(1), sequence("B", 1)})},
          {"special_tokens", {{bos, entry}}}};
}

// GGUF's names of the ways to cut words that this program knows.
struct Cut {
  std::string_view name;
  std::vector<std::string> patterns;
};
const Cut kCuts[] = {{"gpt-2", {kGpt2Pattern}}, {"smollm", {kDigitPattern, kGpt2Pattern}}};

}  // namespace

std::string GgufNameOfPatterns(const std::vector<std::string>& patterns) {
  for (const Cut& cut : kCuts)
    if (cut.patterns == patterns) return std::string(cut.name);
  return "";
}

ByteBpeVocabulary ParseByteBpeJson(const Json& json, const std::string& where) {
  const Json model = JsonGet<Json>(json, "model", where);
  const auto type = JsonGet<std::string>(model, "type", where, std::string("BPE"));
  if (type != "BPE") Refuse(where, Cat("model ", type));
  if (JsonGet<bool>(model, "byte_fallback", where, false))
    Refuse(where, "byte_fallback (give the SentencePiece tokenizer.model instead)");
  if (json.contains("normalizer") && !json["normalizer"].is_null()) Refuse(where, "a normalizer");
  ByteBpeVocabulary vocabulary;
  const Json vocab = JsonGet<Json>(model, "vocab", where);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, vocab.is_object(), where, ": vocab is no object");
  for (const auto& [piece, id] : vocab.items()) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, id.is_number_integer(), where, ": id of \"", piece,
                   "\" is no number");
    SetPiece(vocabulary, id.get<int64_t>(), piece, false, where);
  }
  for (const Json& token : JsonGet<std::vector<Json>>(json, "added_tokens", where, {}))
    SetPiece(vocabulary, JsonGet<int64_t>(token, "id", where),
             JsonGet<std::string>(token, "content", where),
             JsonGet<bool>(token, "special", where, false), where);
  ReadMerges(JsonGet<Json>(model, "merges", where), where, vocabulary);
  ReadPreTokenizer(JsonGet<Json>(json, "pre_tokenizer", where), where, vocabulary.patterns);
  return vocabulary;
}

ByteBpeVocabulary ReadByteBpeJson(const fs::path& file) {
  const Json json = ReadJsonFile(file);
  ByteBpeVocabulary vocabulary = ParseByteBpeJson(json, file.string());
  vocabulary.bos_id = FindSpecial(file.parent_path(), "bos", vocabulary);
  vocabulary.eos_id = FindSpecial(file.parent_path(), "eos", vocabulary);
  vocabulary.add_bos = SaysAddBos(file.parent_path(), json);
  return vocabulary;
}

std::string ByteBpeToJson(const ByteBpeVocabulary& vocabulary) {
  Json vocab = Json::object(), added = Json::array(), merges = Json::array(), steps = Json::array();
  for (size_t id = 0; id < vocabulary.piece_V.size(); ++id) {
    vocab[vocabulary.piece_V[id]] = id;
    if (vocabulary.is_special_V[id])
      added.push_back({{"id", id},
                       {"content", vocabulary.piece_V[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
  }
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
  const bool add_bos = vocabulary.add_bos && vocabulary.bos_id >= 0;
  const Json post_processor =
      add_bos ? BosTemplate(vocabulary.piece_V[static_cast<size_t>(vocabulary.bos_id)],
                            vocabulary.bos_id)
              : Json();
  const Json json = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", steps}}},
                     {"post_processor", post_processor},
                     {"decoder", byte_level},
                     {"model",
                      {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", nullptr},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", false},
                       {"byte_fallback", false},
                       {"vocab", vocab},
                       {"merges", merges}}}};
  return json.dump();
}

ByteBpeVocabulary ByteBpeVocabularyOfGguf(const io::GgufMetadata& metadata) {
  constexpr double kNormal = 1;
  ByteBpeVocabulary vocabulary;
  vocabulary.piece_V = metadata.Texts("tokenizer.ggml.tokens");
  for (const double type : metadata.Numbers("tokenizer.ggml.token_type"))
    vocabulary.is_special_V.push_back(type != kNormal);
  Json merges = Json::array();
  for (const std::string& merge : metadata.Texts("tokenizer.ggml.merges")) merges.push_back(merge);
  ReadMerges(merges, metadata.where, vocabulary);
  const std::string cut = metadata.Text("tokenizer.ggml.pre").value_or("");
  const auto known = std::find_if(std::begin(kCuts), std::end(kCuts),
                                  [&](const Cut& candidate) { return candidate.name == cut; });
  if (known == std::end(kCuts)) Refuse(metadata.where, Cat("tokenizer.ggml.pre \"", cut, "\""));
  vocabulary.patterns = known->patterns;
  const auto special = [&](const std::string& name) {
    return static_cast<int32_t>(
        metadata.Integer("tokenizer.ggml." + name + "_token_id").value_or(-1));
  };
  vocabulary.bos_id = special("bos");
  vocabulary.eos_id = special("eos");
  vocabulary.unk_id = special("unknown");
  vocabulary.pad_id = special("padding");
  vocabulary.add_bos = metadata.Flag("tokenizer.ggml.add_bos_token").value_or(false);
  return vocabulary;
}

}  // namespace lwm::data
