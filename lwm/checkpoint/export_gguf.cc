#include <ATen/ATen.h>

#include "lwm/base/error.h"
#include "lwm/checkpoint/export.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/rotary_pairs.h"
#include "lwm/checkpoint/stored_form.h"
#include "lwm/checkpoint/weight_rules.h"
#include "lwm/io/gguf_writer.h"

namespace lwm::checkpoint {
namespace {

using config::ModelConfig;
using config::RopeScaling;
using io::GgufType;

// GGUF's general.file_type.
uint32_t FileType(GgufType type) {
  switch (type) {
    case GgufType::kF32:
      return 0;
    case GgufType::kF16:
      return 1;
    case GgufType::kQ4_0:
      return 2;
    case GgufType::kQ8_0:
      return 7;
    case GgufType::kBF16:
      return 32;
    default:
      throw Error(ErrorCode::kInvalidArgument, "this GGUF type cannot be written");
  }
}

void AddSize(io::GgufKeys& keys, const char* key, int64_t value) {
  LWM_REQUIRE(value >= 0 && value <= UINT32_MAX, key, " ", value, " does not fit GGUF");
  keys.AddUnsigned(key, static_cast<uint32_t>(value));
}

void AddRope(io::GgufKeys& keys, const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  keys.AddFloat("llama.rope.freq_base", static_cast<float>(config.rope_theta));
  AddSize(keys, "llama.rope.dimension_count", config.head_dim);
  if (scaling.type == RopeScaling::Type::kDefault) return;
  const RopeScaling usual;
  const bool plain_yarn = scaling.type == RopeScaling::Type::kYarn &&
                          scaling.beta_fast == usual.beta_fast &&
                          scaling.beta_slow == usual.beta_slow && scaling.attention_factor == 0;
  LWM_REQUIRE(plain_yarn || scaling.type == RopeScaling::Type::kLinear,
              "this model's rope scaling cannot be stated in GGUF; linear and plain yarn can");
  keys.AddText("llama.rope.scaling.type", plain_yarn ? "yarn" : "linear");
  keys.AddFloat("llama.rope.scaling.factor", static_cast<float>(scaling.factor));
  if (scaling.original_max_position_embeddings > 0)
    AddSize(keys, "llama.rope.scaling.original_context_length",
            static_cast<int64_t>(scaling.original_max_position_embeddings));
}

void AddArchitecture(io::GgufKeys& keys, const ModelConfig& config, const std::string& name,
                     GgufType type) {
  keys.AddText("general.architecture", "llama");
  keys.AddText("general.name", name);
  AddSize(keys, "general.file_type", FileType(type));
  AddSize(keys, "llama.context_length", config.max_position_embeddings);
  AddSize(keys, "llama.embedding_length", config.hidden_size);
  AddSize(keys, "llama.block_count", config.num_hidden_layers);
  AddSize(keys, "llama.feed_forward_length", config.intermediate_size);
  AddSize(keys, "llama.attention.head_count", config.num_attention_heads);
  AddSize(keys, "llama.attention.head_count_kv", config.num_key_value_heads);
  AddSize(keys, "llama.attention.key_length", config.head_dim);
  AddSize(keys, "llama.attention.value_length", config.head_dim);
  keys.AddFloat("llama.attention.layer_norm_rms_epsilon", static_cast<float>(config.rms_norm_eps));
  AddSize(keys, "llama.vocab_size", config.vocab_size);
  AddRope(keys, config);
}

// The second and third id that end a text have keys of their own.
void AddMoreEos(io::GgufKeys& keys, const GgufVocabulary& vocabulary) {
  const std::vector<int64_t>& more = vocabulary.more_eos;
  if (!more.empty()) AddSize(keys, "tokenizer.ggml.eot_token_id", more[0]);
  if (more.size() > 1) AddSize(keys, "tokenizer.ggml.eom_token_id", more[1]);
  if (more.size() < 3) return;
  std::vector<int32_t> all = {static_cast<int32_t>(vocabulary.eos)};
  for (const int64_t id : more) all.push_back(static_cast<int32_t>(id));
  keys.AddIntegers(kGgufEosIds, all);
}

void AddChatTemplates(io::GgufKeys& keys, const std::map<std::string, std::string>& templates) {
  std::vector<std::string> names;
  for (const auto& [name, text] : templates) {
    if (name == "default") {
      keys.AddText("tokenizer.chat_template", text);
      continue;
    }
    names.push_back(name);
    keys.AddText("tokenizer.chat_template." + name, text);
  }
  if (!names.empty()) keys.AddTexts("tokenizer.chat_templates", names);
}

void AddVocabulary(io::GgufKeys& keys, const GgufVocabulary& vocabulary) {
  if (vocabulary.tokens.empty()) return;
  const bool byte_level = !vocabulary.pre_tokenizer.empty();
  keys.AddText("tokenizer.ggml.model", byte_level ? "gpt2" : "llama");
  if (byte_level) keys.AddText("tokenizer.ggml.pre", vocabulary.pre_tokenizer);
  keys.AddTexts("tokenizer.ggml.tokens", vocabulary.tokens);
  if (byte_level)
    keys.AddTexts("tokenizer.ggml.merges", vocabulary.merges);
  else
    keys.AddFloats("tokenizer.ggml.scores", vocabulary.scores);
  keys.AddIntegers("tokenizer.ggml.token_type", vocabulary.types);
  const std::pair<const char*, int64_t> ids[] = {
      {"tokenizer.ggml.bos_token_id", vocabulary.bos},
      {"tokenizer.ggml.eos_token_id", vocabulary.eos},
      {"tokenizer.ggml.unknown_token_id", vocabulary.unknown},
      {"tokenizer.ggml.padding_token_id", vocabulary.padding}};
  for (const auto& [key, id] : ids)
    if (id >= 0) AddSize(keys, key, id);
  keys.AddFlag("tokenizer.ggml.add_bos_token", vocabulary.add_bos);
  keys.AddFlag("tokenizer.ggml.add_eos_token", vocabulary.add_eos);
  if (!byte_level) keys.AddFlag("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix);
  AddChatTemplates(keys, vocabulary.chat_templates);
}

// A tokenizer smaller than the table gets pieces that nothing encodes to: llama.cpp wants one per
// row.
GgufVocabulary PaddedVocabulary(GgufVocabulary vocabulary, int64_t vocab_size) {
  constexpr int32_t kUnused = 5;
  if (vocabulary.tokens.empty()) return vocabulary;
  for (auto i = static_cast<int64_t>(vocabulary.tokens.size()); i < vocab_size; ++i) {
    vocabulary.tokens.push_back(Cat("[PAD", i, "]"));
    if (vocabulary.pre_tokenizer.empty()) vocabulary.scores.push_back(-1000);
    vocabulary.types.push_back(kUnused);
  }
  return vocabulary;
}

}  // namespace

void SaveGguf(const ModelConfig& config, const ReadWeight& read, const std::filesystem::path& file,
              GgufType type, const std::string& name, const GgufVocabulary& vocabulary) {
  io::GgufKeys keys;
  AddArchitecture(keys, config, name, type);
  AddVocabulary(keys, PaddedVocabulary(vocabulary, config.vocab_size));
  AddMoreEos(keys, vocabulary);
  for (const auto& [file_name, text] : vocabulary.files) keys.AddText(kGgufFiles + file_name, text);
  const std::vector<model::TensorSpec> specs = AllTensorSpecs(config);
  std::vector<io::GgufWriter::Tensor> tensors;
  for (const model::TensorSpec& spec : specs)
    tensors.push_back({GgufNameOf(spec.name), spec.shape, StoredType(spec, type)});
  io::GgufWriter writer(file, keys, tensors);
  for (size_t i = 0; i < specs.size(); ++i) {
    at::Tensor weight = read(specs[i]);
    const int64_t heads = RotaryHeadsOf(config, specs[i].name);
    // llama.cpp rotates neighbouring rows of a head, Hugging Face rows half a head apart.
    if (heads > 0) weight = PairsFromHalves(weight, heads);
    WriteStoredForm(weight, tensors[i].type, specs[i].name,
                    [&](auto bytes) { writer.Write(tensors[i].name, bytes); });
  }
  writer.Finish();
}

}  // namespace lwm::checkpoint
