#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "lwm/data/documents.h"
#include "lwm/data/field_grammar.h"
#include "lwm/data/row.h"
#include "lwm/data/tokenizer.h"

namespace lwm::data {

// "books/a.txt", "books/a.txt and 4 other files".
std::string NameOfFiles(const std::vector<DocumentFile>& files);

// A fixed list of units that can be read in any order, from any thread.
class ExampleSource {
 public:
  virtual ~ExampleSource() = default;
  virtual int64_t units() const = 0;
  virtual int64_t files() const = 0;
  virtual int64_t tokens() const = 0;  // of all units; -1 = not counted
  // 0 <= unit < units(). What is drawn anew at every visit follows from the epoch; kHeldOut: none
  // of that. An empty example: a bad line that is skipped.
  virtual Example Read(int64_t unit, int64_t epoch) const = 0;
  static constexpr int64_t kHeldOut = -1;

  // How often an epoch visits the unit, on average; without weights once.
  virtual bool has_weights() const { return false; }
  virtual double Weight(int64_t /*unit*/) const { return 1; }

  // Number of units cut from documents, which come first: each fits in a row and has something to
  // learn. The others must be read to know.
  virtual int64_t pieces() const { return 0; }

  // Changes with the text of the files, whatever they are called, packed or not.
  virtual std::string fingerprint() const = 0;
  virtual std::string name() const = 0;  // for messages: of the first file, and how many more

  // Bad lines that were skipped so far, each counted once.
  virtual int64_t skipped() const { return 0; }

  // Encodes the media of the units part, part + parts, ... into their cache; done(1) after each.
  virtual void EncodeMedia(int64_t /*part*/, int64_t /*parts*/,
                           const std::function<void(int64_t units)>& /*done*/) const {}
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

struct JsonlSourceOptions {
  FieldGrammar grammar;
  bool skip_bad_lines = false;  // a line that is no example: empty, and one warning on stderr
  bool warn = true;             // the warning
  bool line_weights = false;    // a line's "weight", a number from 0 (default 1), is its Weight
  uint64_t seed = 0;            // of what visits draw
};

// JSONL files, one unit per line that is not blank. Without skip_bad_lines Read throws what
// BuildExample throws. With line_weights opening parses every line; throws Error(kCorruptData)
// naming the line whose weight is bad.
std::unique_ptr<ExampleSource> OpenJsonlSource(const std::vector<DocumentFile>& files,
                                               std::shared_ptr<const Tokenizer> tokenizer,
                                               const JsonlSourceOptions& options);

// The units of several sources, one after the other; text before JSONL.
std::unique_ptr<ExampleSource> JoinSources(std::vector<std::unique_ptr<ExampleSource>> sources);

}  // namespace lwm::data
