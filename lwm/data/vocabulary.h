#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/data/tokenizer.h"
#include "lwm/data/tokenizer_settings.h"

namespace lwm::data {

// The special ids that a vocabulary names itself; -1 = none.
struct SpecialIds {
  int32_t bos = -1, eos = -1, unk = -1, pad = -1;
};

// The pieces of a tokenizer: text without added tokens <-> ids. Immutable; any thread.
class Vocabulary {
 public:
  virtual ~Vocabulary() = default;

  // Appends the ids of `text`, any bytes. `is_first`: the whole text begins here, no added token
  // stands before it.
  virtual void Encode(std::string_view text, bool is_first, std::vector<int32_t>& ids) const = 0;
  // The bytes of a piece; `id` must be in [0, size()).
  virtual std::string PieceBytes(int32_t id) const = 0;
  virtual bool drops_space_at_start(int32_t id) const = 0;
  virtual int32_t size() const = 0;
  virtual int32_t Find(std::string_view spelling) const = 0;  // -1 = none
  virtual std::string Spelling(int32_t id) const = 0;
  virtual SpecialIds special_ids() const = 0;
  // Whether texts begin with BOS and end with EOS where no settings say.
  virtual bool begins_with_bos() const = 0;
  virtual bool ends_with_eos() const = 0;
  // Whether a space is put before a text; nothing where the question has no meaning.
  virtual std::optional<bool> adds_space() const { return {}; }
  // Control tokens, and those that the vocabulary's own file adds to its pieces.
  virtual const std::vector<AddedToken>& added() const = 0;
  virtual std::string file_name() const = 0;
  virtual const std::string& file_content() const = 0;
};

// The tokenizer of a vocabulary and the settings beside it. Where both name an id, the settings
// count. Throws Error(kCorruptData) naming `where` when an added token's id is beyond 2^24.
std::unique_ptr<Tokenizer> MakeTokenizer(std::unique_ptr<Vocabulary> vocabulary,
                                         TokenizerSettings settings, const std::string& where);

}  // namespace lwm::data
