#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "lwm/base/file.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/data/tokenizer.h"
#include "lwm/testing/tiny_model.h"

namespace lwm::testing_support {

// Writes a model directory of TinyWeights in f32, of the tokenizer's vocabulary, with the
// tokenizer.
inline void WriteTinyModelDirectory(const std::filesystem::path& folder, config::ModelConfig config,
                                    const data::Tokenizer& tokenizer) {
  config.vocab_size = tokenizer.vocab_size();
  model::ResidentWeights weights = TinyWeights(config);
  std::map<std::string, at::Tensor> by_name;
  weights.Visit([&](const model::TensorSpec& spec, at::Tensor& weight, at::Tensor&) {
    by_name[spec.name] = weight;
  });
  checkpoint::SaveModelDirectory(
      config, [&](const model::TensorSpec& spec) { return by_name.at(spec.name); }, folder,
      {.dtype = at::kFloat});
  WriteFileAtomically(folder / tokenizer.file_name(), tokenizer.file_content());
}

}  // namespace lwm::testing_support
