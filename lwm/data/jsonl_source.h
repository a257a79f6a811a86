#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lwm/data/documents.h"
#include "lwm/data/example_source.h"
#include "lwm/data/field_grammar.h"
#include "lwm/data/tokenizer.h"

namespace lwm::data {

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

}  // namespace lwm::data
