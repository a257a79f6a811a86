#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lwm::data {

struct AddedToken;
struct TokenizerSettings;

// Text <-> token ids. Immutable after opening; every method may be called from any thread.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // The ids of `text`, which may hold any bytes: NUL is a character, each byte that is not valid
  // UTF-8 is read as U+FFFD. Adds no BOS or EOS; markers such as "<s>" in the text are plain text,
  // added tokens that are not special ("<think>") are these tokens; "" gives no ids.
  // Cost: about 10 MB of English per second.
  virtual std::vector<int32_t> Encode(std::string_view text) const = 0;

  // As Encode, but special tokens in the text are these tokens too.
  virtual std::vector<int32_t> EncodeSpecial(std::string_view text) const { return Encode(text); }

  // As EncodeSpecial, but bytes of `text` whose entry in `foreign` is not 0 (a user's message in a
  // chat template) are never part of a special token. `foreign` may be empty: none.
  virtual std::vector<int32_t> EncodeMarked(std::string_view text,
                                            std::string_view /*foreign*/) const {
    return Encode(text);
  }

  // The bytes that one token adds to a text. Control tokens (BOS, EOS) add none, a byte token one,
  // which need not be valid UTF-8 by itself. Throws Error(kInvalidArgument) on an id outside
  // [0, vocab_size()).
  virtual std::string TokenBytes(int32_t id) const = 0;

  // True when the token's leading space, at the start of a text, is the one that encoding put there
  // (LLaMA) and that decoding takes away again.
  virtual bool drops_space_at_start(int32_t id) const = 0;

  virtual int32_t vocab_size() const = 0;
  virtual int32_t bos_id() const = 0;  // -1 = none; so for the next three
  virtual int32_t eos_id() const = 0;
  virtual int32_t unk_id() const = 0;
  virtual int32_t pad_id() const = 0;

  // True when the models of this vocabulary expect BOS before every text (and there is one). So for
  // EOS after every text.
  virtual bool begins_with_bos() const = 0;
  virtual bool ends_with_eos() const { return false; }
  // The one rule for BOS, in training, generation, scoring and evaluation: the token to put before
  // a text, nothing where begins_with_bos() is false. bos_id() alone does not decide: many
  // vocabularies name a BOS that their models never saw.
  std::optional<int32_t> leading_bos() const {
    return begins_with_bos() ? std::optional(bos_id()) : std::nullopt;
  }

  // The control tokens under their names ("<|im_start|>"), which Encode reads as plain text.
  virtual const std::vector<std::pair<std::string, int32_t>>& special_tokens() const = 0;

  // The id of the piece that is spelled so ("<s>", "\u2581the"); -1 = none.
  virtual int32_t FindPiece(std::string_view /*spelling*/) const { return -1; }

  // The vocabulary's file: its name in a model directory ("tokenizer.model") and its content. A
  // directory holds more: TokenizerFiles (tokenizer_files.h).
  virtual std::string file_name() const = 0;
  virtual const std::string& file_content() const = 0;

  // The settings of the files beside the vocabulary, completed from it: flags in force, names of
  // special tokens by their ids, added tokens of both.
  virtual const TokenizerSettings& settings() const;

  // The text of `ids` as valid UTF-8: the tokens' bytes joined, without the one leading space that
  // the prefix made, each byte that is not part of a whole character as U+FFFD.
  std::string Decode(std::span<const int32_t> ids) const;
};

// Decode() in pieces: the strings returned by Push for each id and by Finish at the end join to
// exactly Decode(ids), and no piece ends inside a UTF-8 character.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  std::string Push(int32_t id);
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  std::string held_;  // the beginning of a character whose end has not come yet
  bool at_start_ = true;
};

// As Encode, but the name of a special token in the text is that token (of several that begin at
// the same place, the longest): what chat templates need. Not for text from strangers.
inline std::vector<int32_t> EncodeWithSpecialTokens(const Tokenizer& tokenizer,
                                                    std::string_view text) {
  return tokenizer.EncodeSpecial(text);
}

// Opens a tokenizer and recognises its kind by content: a SentencePiece model, a Hugging Face
// tokenizer.json (byte-level BPE), or the vocabulary inside a GGUF file (of either kind). `path` is
// the file or a model directory that holds tokenizer.model or tokenizer.json. Throws
// Error(kNotFound) when there is none, Error(kCorruptData) naming the file when it is none of the
// known kinds or is damaged.
std::unique_ptr<Tokenizer> OpenTokenizer(const std::filesystem::path& path);

}  // namespace lwm::data
