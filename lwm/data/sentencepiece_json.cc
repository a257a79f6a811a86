#include "lwm/data/sentencepiece_json.h"

#include <algorithm>
#include <unordered_set>

#include "lwm/base/json.h"
#include "lwm/data/sentencepiece_model.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/data/tokenizer_settings.h"
#include "lwm/data/utf8.h"

namespace lwm::data {
namespace {

using Type = PieceVocabulary::Type;
constexpr const char* kSpace = "\u2581";

struct RankedMerge {
  float score;
  size_t id;  // of the merged piece
  std::string left, right;
};

// Every pair of pieces that makes a piece, in the order in which SentencePiece prefers them.
Json MergesOf(const PieceVocabulary& vocabulary) {
  std::unordered_set<std::string_view> normal;
  for (size_t id = 0; id < vocabulary.piece_V.size(); ++id)
    if (vocabulary.type_V[id] == Type::kNormal) normal.insert(vocabulary.piece_V[id]);
  std::vector<RankedMerge> merges;
  for (size_t id = 0; id < vocabulary.piece_V.size(); ++id) {
    if (vocabulary.type_V[id] != Type::kNormal) continue;
    const std::string_view piece = vocabulary.piece_V[id];
    for (size_t cut = piece.size(); cut-- > 1;) {  // the longest left part first
      const std::string_view left = piece.substr(0, cut), right = piece.substr(cut);
      if (normal.contains(left) && normal.contains(right))
        merges.push_back({vocabulary.score_V[id], id, std::string(left), std::string(right)});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const RankedMerge& a, const RankedMerge& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
  });
  Json list = Json::array();
  for (const RankedMerge& merge : merges) list.push_back(merge.left + " " + merge.right);
  return list;
}

Json ModelOf(const SentencePieceModel& model) {
  const PieceVocabulary& pieces = model.vocabulary;
  Json vocab = Json::object();
  for (size_t id = 0; id < pieces.piece_V.size(); ++id) vocab[pieces.piece_V[id]] = id;
  const Json unknown =
      pieces.unk_id < 0 ? Json() : Json(pieces.piece_V[static_cast<size_t>(pieces.unk_id)]);
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", unknown},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", true},
          {"byte_fallback", model.byte_fallback},
          {"ignore_merges", false},
          {"vocab", vocab},
          {"merges", MergesOf(pieces)}};
}

Json Replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

Json NormalizerOf(bool adds_space, bool only_first) {
  Json steps = Json::array();
  if (adds_space && !only_first) steps.push_back({{"type", "Prepend"}, {"prepend", kSpace}});
  steps.push_back(Replace(" ", kSpace));
  return {{"type", "Sequence"}, {"normalizers", steps}};
}

Json DecoderOf(bool adds_space) {
  Json steps = {Replace(kSpace, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (adds_space) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", steps}};
}

// The post-processor that puts BOS and EOS around a text; null when there is neither.
Json TemplateOf(const Tokenizer& tokenizer) {
  Json single = Json::array(), tokens = Json::object();
  const auto add = [&](const std::string& name, int32_t id) {
    single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
    tokens[name] = {{"id", name}, {"ids", Json::array({id})}, {"tokens", Json::array({name})}};
  };
  const TokenizerSettings& settings = tokenizer.settings();
  if (const auto bos = tokenizer.leading_bos()) add(settings.bos_token, *bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (tokenizer.ends_with_eos()) add(settings.eos_token, tokenizer.eos_id());
  if (tokens.empty()) return {};
  Json pair = single;
  for (Json part : single) {
    if (part.contains("Sequence")) part["Sequence"]["id"] = "B";
    part.front()["type_id"] = 1;
    pair.push_back(part);
  }
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", tokens}};
}

Json AddedOf(const Tokenizer& tokenizer, const PieceVocabulary& pieces) {
  Json list = Json::array();
  const std::vector<AddedToken>& added = tokenizer.settings().added;
  const auto add = [&](const AddedToken& token) {
    list.push_back(ToJson(token, /*with_id=*/true));
  };
  for (const AddedToken& token : added) add(token);
  for (size_t i = 0; i < pieces.piece_V.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const bool listed = std::any_of(added.begin(), added.end(),
                                    [&](const AddedToken& token) { return token.id == id; });
    if (pieces.type_V[i] == Type::kUserDefined && !listed)
      add({.id = id, .content = WithSpaces(pieces.piece_V[i])});
    if (pieces.type_V[i] == Type::kUnknown && !listed)
      add({.id = id, .content = pieces.piece_V[i], .special = true});
  }
  std::sort(list.begin(), list.end(),
            [](const Json& a, const Json& b) { return a["id"] < b["id"]; });
  return list;
}

}  // namespace

std::string SentencePieceToJson(const Tokenizer& tokenizer) {
  const SentencePieceModel model =
      ParseSentencePieceModel(tokenizer.file_content(), tokenizer.file_name());
  if (!model.is_bpe || model.normalises || model.removes_extra_spaces || model.spaces_at_end)
    return "";
  const TokenizerSettings& settings = tokenizer.settings();
  const bool adds_space = settings.add_prefix_space.value_or(model.vocabulary.add_space_prefix);
  const bool only_first = settings.legacy == false;
  const Json first = {{"type", "Metaspace"},
                      {"replacement", kSpace},
                      {"prepend_scheme", "first"},
                      {"split", false}};
  const Json json = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", AddedOf(tokenizer, model.vocabulary)},
                     {"normalizer", NormalizerOf(adds_space, only_first)},
                     {"pre_tokenizer", adds_space && only_first ? first : Json()},
                     {"post_processor", TemplateOf(tokenizer)},
                     {"decoder", DecoderOf(adds_space)},
                     {"model", ModelOf(model)}};
  return json.dump();
}

}  // namespace lwm::data
