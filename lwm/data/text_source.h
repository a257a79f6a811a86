#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "lwm/data/documents.h"
#include "lwm/data/example_source.h"
#include "lwm/data/tokenizer.h"

namespace lwm::data {

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

}  // namespace lwm::data
