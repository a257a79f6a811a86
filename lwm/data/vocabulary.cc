#include "lwm/data/vocabulary.h"

#include <map>

#include "lwm/base/error.h"

namespace lwm::data {
namespace {

// Added tokens by id, the settings' before the vocabulary's.
std::map<int32_t, AddedToken> MergeAdded(const Vocabulary& vocabulary,
                                         const TokenizerSettings& settings,
                                         const std::string& where) {
  constexpr int32_t kMaxPieces = 1 << 24;
  std::map<int32_t, AddedToken> added;
  for (const auto* list : {&vocabulary.added(), &settings.added}) {
    for (const AddedToken& token : *list) {
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, token.id >= 0 && token.id < kMaxPieces, where,
                     ": token id ", token.id, " of \"", token.content, "\"");
      added[token.id] = token;
    }
  }
  return added;
}

std::vector<AddedToken> ValuesOf(const std::map<int32_t, AddedToken>& added) {
  std::vector<AddedToken> tokens;
  for (const auto& [id, token] : added) tokens.push_back(token);
  return tokens;
}

// A named special token is one even where no list says so.
class SpecialNames {
 public:
  SpecialNames(const Vocabulary& vocabulary, std::map<int32_t, AddedToken>& added)
      : vocabulary_(vocabulary), added_(added) {}

  // Sets `id` to the token called `name`, if there is one, else `name` to that of `id`.
  // `marks`: makes it a special token.
  void Resolve(std::string& name, int32_t& id, bool marks = true) {
    const bool agrees = id >= 0 && name == Text(id);  // of tokens spelled alike, this one
    if (const int32_t named = agrees ? id : name.empty() ? -1 : Find(name); named >= 0) {
      id = named;
      if (!marks) return;
      AddedToken& token = added_[named];
      if (token.id < 0) token = {.id = named, .content = name, .normalized = false};
      token.special = true;
    } else if (id >= 0) {
      name = Text(id);
    } else {
      name.clear();
    }
  }

 private:
  std::string Text(int32_t id) const {
    const auto found = added_.find(id);
    return found != added_.end() ? found->second.content : vocabulary_.Spelling(id);
  }
  int32_t Find(const std::string& name) const {
    for (const auto& [id, token] : added_)
      if (token.content == name) return id;
    return vocabulary_.Find(name);
  }

  const Vocabulary& vocabulary_;
  std::map<int32_t, AddedToken>& added_;
};

class VocabularyTokenizer final : public Tokenizer {
 public:
  VocabularyTokenizer(std::unique_ptr<Vocabulary> vocabulary, TokenizerSettings settings,
                      std::map<int32_t, AddedToken> added, const SpecialIds& ids)
      : vocabulary_(std::move(vocabulary)),
        settings_(std::move(settings)),
        ids_(ids),
        added_(std::move(added)),
        finder_(ValuesOf(added_)) {
    settings_.added = finder_.tokens();
    settings_.add_bos = begins_with_bos();
    settings_.add_eos = ends_with_eos();
    settings_.add_prefix_space = vocabulary_->adds_space();
    if (settings_.add_prefix_space) settings_.legacy = settings_.legacy.value_or(true);
    vocab_size_ = vocabulary_->size();
    if (!added_.empty()) vocab_size_ = std::max(vocab_size_, added_.rbegin()->first + 1);
    for (const auto& [id, token] : added_)
      if (token.special && !token.content.empty()) special_tokens_.emplace_back(token.content, id);
  }

  std::vector<int32_t> Encode(std::string_view text) const override {
    if (finder_.has_plain()) return EncodeParts(text, /*with_special=*/false);
    std::vector<int32_t> ids;
    vocabulary_->Encode(text, /*is_first=*/true, ids);
    return ids;
  }

  std::vector<int32_t> EncodeSpecial(std::string_view text) const override {
    return EncodeParts(text, /*with_special=*/true);
  }

  std::vector<int32_t> EncodeMarked(std::string_view text,
                                    std::string_view foreign) const override {
    return EncodeParts(text, /*with_special=*/true, foreign);
  }

  std::string TokenBytes(int32_t id) const override {
    LWM_REQUIRE(id >= 0 && id < vocab_size(), "token id ", id,
                " is outside the tokenizer's vocabulary of ", vocab_size());
    const auto found = added_.find(id);
    if (found != added_.end()) return found->second.special ? "" : found->second.content;
    return id < vocabulary_->size() ? vocabulary_->PieceBytes(id) : "";
  }

  bool drops_space_at_start(int32_t id) const override {
    return id >= 0 && id < vocabulary_->size() && !added_.contains(id) &&
           vocabulary_->drops_space_at_start(id);
  }

  int32_t vocab_size() const override { return vocab_size_; }
  int32_t bos_id() const override { return ids_.bos; }
  int32_t eos_id() const override { return ids_.eos; }
  int32_t unk_id() const override { return ids_.unk; }
  int32_t pad_id() const override { return ids_.pad; }
  bool begins_with_bos() const override {
    return settings_.add_bos.value_or(vocabulary_->begins_with_bos()) && ids_.bos >= 0;
  }
  bool ends_with_eos() const override {
    return settings_.add_eos.value_or(vocabulary_->ends_with_eos()) && ids_.eos >= 0;
  }
  const std::vector<std::pair<std::string, int32_t>>& special_tokens() const override {
    return special_tokens_;
  }
  int32_t FindPiece(std::string_view spelling) const override {
    for (const auto& [id, token] : added_)
      if (token.content == spelling) return id;
    return vocabulary_->Find(spelling);
  }
  std::string file_name() const override { return vocabulary_->file_name(); }
  const std::string& file_content() const override { return vocabulary_->file_content(); }
  const TokenizerSettings& settings() const override { return settings_; }

 private:
  std::vector<int32_t> EncodeParts(std::string_view text, bool with_special,
                                   std::string_view foreign = {}) const {
    std::vector<int32_t> ids;
    for (const AddedTokenFinder::Part& part : finder_.Split(text, with_special, foreign)) {
      if (part.id >= 0)
        ids.push_back(part.id);
      else
        vocabulary_->Encode(part.text, part.text.data() == text.data(), ids);
    }
    return ids;
  }

  std::unique_ptr<Vocabulary> vocabulary_;
  TokenizerSettings settings_;
  SpecialIds ids_;
  std::map<int32_t, AddedToken> added_;
  AddedTokenFinder finder_;
  std::vector<std::pair<std::string, int32_t>> special_tokens_;
  int32_t vocab_size_ = 0;
};

}  // namespace

std::unique_ptr<Tokenizer> MakeTokenizer(std::unique_ptr<Vocabulary> vocabulary,
                                         TokenizerSettings settings, const std::string& where) {
  std::map<int32_t, AddedToken> added = MergeAdded(*vocabulary, settings, where);
  // Such vocabularies normalise nothing but spaces, before which tokens are looked for.
  if (vocabulary->adds_space())
    for (auto& [id, token] : added) token.normalized = false;
  SpecialIds ids = vocabulary->special_ids();
  SpecialNames names(*vocabulary, added);
  names.Resolve(settings.bos_token, ids.bos);
  names.Resolve(settings.eos_token, ids.eos);
  names.Resolve(settings.unk_token, ids.unk, /*marks=*/false);  // shown as the vocabulary does
  names.Resolve(settings.pad_token, ids.pad);
  return std::make_unique<VocabularyTokenizer>(std::move(vocabulary), std::move(settings),
                                               std::move(added), ids);
}

}  // namespace lwm::data
