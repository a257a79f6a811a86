#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "lwm/checkpoint/export.h"
#include "lwm/data/tokenizer.h"
#include "lwm/io/tensor_source.h"

namespace lwm::app {

// The tokenizer that goes with a conversion: the one in `named` if that is given (llama2.c's
// tokenizer.bin for such a source), else the source's own: inside a GGUF file, or beside the
// weights in `folder`. Nothing when there is none, or none that this program reads; then a line on
// stderr says why.
std::unique_ptr<data::Tokenizer> FindTokenizer(const std::string& named,
                                               const io::TensorSource& source,
                                               const std::filesystem::path& folder,
                                               int64_t vocab_size);

// The files of a model directory other than config and weights, name -> content: the tokenizer's
// files (copied from `folder` unread if this program cannot read its tokenizer) and
// generation_config.json, from the folder or made from a GGUF source, with all end-of-text ids.
std::map<std::string, std::string> FilesBesideWeights(const std::filesystem::path& folder,
                                                      const io::TensorSource& source,
                                                      const data::Tokenizer* tokenizer,
                                                      const config::ModelConfig& config);

// The tokenizer in GGUF's terms, with those of `files` that GGUF can carry. Throws
// Error(kInvalidArgument) when GGUF has no name for its pre-tokenizer.
checkpoint::GgufVocabulary GgufVocabularyOf(const data::Tokenizer& tokenizer,
                                            const config::ModelConfig& config,
                                            const std::map<std::string, std::string>& files);

}  // namespace lwm::app
