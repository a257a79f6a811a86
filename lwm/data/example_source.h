#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "lwm/data/documents.h"
#include "lwm/data/field_grammar.h"
#include "lwm/data/row.h"
#include "lwm/data/tokenizer.h"

namespace lwm::data {

// A fixed list of units that can be read in any order, from any thread.
class ExampleSource {
 public:
  virtual ~ExampleSource() = default;
  virtual int64_t units() const = 0;
  virtual int64_t files() const = 0;
  virtual int64_t tokens() const = 0;  // of all units; -1 = not counted
  // 0 <= unit < units(). An empty example: a bad line that is skipped.
  virtual Example Read(int64_t unit) const = 0;
};

struct TextSourceOptions {
  int64_t row_tokens = 0;
  bool joined = false;  // units are cut from the documents joined end to end
  int64_t min_document_tokens = 0, max_document_tokens = 0;  // others are left out; 0 = no limit
  std::filesystem::path cache;  // folder of token files; "" = tokens in memory
};

// Text files as documents of BOS, tokens, EOS, cut into consecutive units of at most row_tokens,
// each with its next_token. Joined: all units but a single one have exactly row_tokens; the last
// begins early enough for that, and what it repeats has no loss. Throws as ReadFile does, and
// Error(kInvalidArgument) when no document is left.
std::unique_ptr<ExampleSource> OpenTextSource(const std::vector<DocumentFile>& files,
                                              const Tokenizer& tokenizer,
                                              const TextSourceOptions& options);

// JSONL files, one unit per line that is not blank. With skip_bad_lines a line that does not parse
// is an empty example and one warning on stderr; otherwise Read throws what BuildExample throws.
std::unique_ptr<ExampleSource> OpenJsonlSource(const std::vector<DocumentFile>& files,
                                               std::shared_ptr<const Tokenizer> tokenizer,
                                               const FieldGrammar& grammar, bool skip_bad_lines);

// The units of several sources, one after the other.
std::unique_ptr<ExampleSource> JoinSources(std::vector<std::unique_ptr<ExampleSource>> sources);

}  // namespace lwm::data
