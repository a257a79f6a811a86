#include "lwm/checkpoint/import_config.h"

#include <cmath>
#include <cstdint>
#include <limits>

#include "lwm/base/error.h"
#include "lwm/checkpoint/export.h"
#include "lwm/io/gguf_source.h"
#include "lwm/io/llama2c_source.h"

namespace lwm::checkpoint {
namespace {

using config::ModelConfig;
using config::RopeScaling;

class GgufConfigReader {
 public:
  explicit GgufConfigReader(const io::GgufSource& source) : source_(source) {}

  ModelConfig Run() {
    const auto architecture = meta().Text("general.architecture");
    LWM_REQUIRE(meta().Text("general.type") != "adapter", source_.where(),
                ": a LoRA adapter as GGUF, not a whole model; merge it into its base model first "
                "(llama.cpp: llama-export-lora)");
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, architecture == "llama", source_.where(),
                   ": a GGUF file of architecture ", architecture.value_or("(none)"),
                   architecture == "clip" ? " (the image encoder of another model)" : "",
                   "; only llama runs");
    Require(meta().Integer("llama.expert_count").value_or(0) == 0, "llama.expert_count", "not 0");
    ModelConfig config;
    config.hidden_size = Size("embedding_length");
    config.num_hidden_layers = Size("block_count");
    config.intermediate_size = Size("feed_forward_length");
    config.max_position_embeddings = Size("context_length");
    config.num_attention_heads = Size("attention.head_count");
    config.num_key_value_heads =
        meta().Integer("llama.attention.head_count_kv").value_or(config.num_attention_heads);
    config.head_dim = HeadDim(config);
    const auto eps = meta().Number("llama.attention.layer_norm_rms_epsilon");
    Require(eps.has_value(), "llama.attention.layer_norm_rms_epsilon", "missing");
    config.rms_norm_eps = Shortest(*eps);
    config.vocab_size = VocabSize();
    // GGUF has no key for it: llama.cpp takes the embedding where the head is absent.
    config.tie_word_embeddings = !source_.contains("output.weight");
    config.bos_token_id = meta().Integer("tokenizer.ggml.bos_token_id").value_or(1);
    ReadEos(config);
    ReadRope(config);
    RefuseUnsupported(config);
    return config;
  }

 private:
  const io::GgufMetadata& meta() const { return source_.metadata(); }

  void Require(bool condition, const std::string& key, const std::string& value) const {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, condition, source_.where(), ": ", key, " is ", value,
                   ", which is not supported");
  }

  // 1e-05f reads as 9.99999974737875e-06; the shortest decimal that gives the same f32 is meant.
  static double Shortest(double value) {
    for (int digits = 1; digits < 9; ++digits) {
      char text[32];
      std::snprintf(text, sizeof(text), "%.*e", digits - 1, value);
      const double candidate = std::strtod(text, nullptr);
      if (static_cast<float>(candidate) == static_cast<float>(value)) return candidate;
    }
    return value;
  }

  int64_t Size(const std::string& key) const {
    const auto size = meta().Integer("llama." + key);
    Require(size.value_or(1) > 0, "llama." + key, "not positive");
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, size.has_value(), source_.where(), ": llama.", key,
                   " is missing");
    return *size;
  }

  int64_t HeadDim(const ModelConfig& config) const {
    const int64_t implied = config.hidden_size / config.num_attention_heads;
    const int64_t dim = meta().Integer("llama.attention.key_length").value_or(implied);
    const int64_t value_dim = meta().Integer("llama.attention.value_length").value_or(implied);
    Require(value_dim == dim, "llama.attention.value_length", "not attention.key_length");
    const int64_t rotated = meta().Integer("llama.rope.dimension_count").value_or(dim);
    // Rotating a part of the head would run without an error and give wrong text.
    Require(rotated == dim, "llama.rope.dimension_count", "not the head's size");
    return dim;
  }

  int64_t VocabSize() const {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                   source_.contains("token_embd.weight") &&
                       source_.info("token_embd.weight").shape.size() == 2,
                   source_.where(), ": token_embd.weight is missing or no matrix");
    return source_.info("token_embd.weight").shape[0];
  }

  // The ids of the end of a text, of a turn and of a message, and the list that this program writes
  // when there are more.
  void ReadEos(ModelConfig& config) const {
    config.eos_token_id = meta().Integer("tokenizer.ggml.eos_token_id").value_or(2);
    const auto add = [&](int64_t id) {
      if (id >= 0 && !config.EndsText(id)) config.more_eos_token_ids.push_back(id);
    };
    for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
      add(meta().Integer(key).value_or(-1));
    for (const double id : meta().Numbers(kGgufEosIds)) {
      Require(id >= 0 && id <= std::numeric_limits<int32_t>::max(), kGgufEosIds, Cat(id));
      add(static_cast<int64_t>(id));
    }
  }

  void ReadRope(ModelConfig& config) const {
    config.rope_theta = Shortest(meta().Number("llama.rope.freq_base").value_or(10000));
    const std::string type = meta().Text("llama.rope.scaling.type").value_or("none");
    const double factor = meta().Number("llama.rope.scaling.factor").value_or(1);
    RopeScaling& scaling = config.rope_scaling;
    if (type == "none" || type.empty()) return;
    Require(type == "linear" || type == "yarn", "llama.rope.scaling.type", type);
    scaling.type = type == "linear" ? RopeScaling::Type::kLinear : RopeScaling::Type::kYarn;
    scaling.factor = Shortest(factor);
    scaling.original_max_position_embeddings = static_cast<double>(
        meta().Integer("llama.rope.scaling.original_context_length").value_or(0));
    scaling.attention_factor = meta().Number("llama.rope.scaling.attn_factor").value_or(0);
  }

  // Keys that change the arithmetic of other architectures, with their neutral values; 0 and false,
  // for "not set", are neutral for all.
  void RefuseUnsupported(const ModelConfig& config) const {
    const std::pair<const char*, double> numbers[] = {
        {"attention.scale", 1 / std::sqrt(static_cast<double>(config.head_dim))},
        {"attention.clamp_kqv", 0},
        {"attn_logit_softcapping", 0},
        {"final_logit_softcapping", 0},
        {"embedding_scale", 1},
        {"residual_scale", 1},
        {"logit_scale", 1}};
    for (const auto& [name, neutral] : numbers) {
      const std::string key = Cat("llama.", name);
      const double value = meta().Number(key).value_or(0);
      const bool is_neutral = std::fabs(value - neutral) <= 1e-6 * neutral;
      Require(value == 0 || is_neutral, key, Cat(value));
    }
    // A window as long as the context hides nothing.
    const char* window = "llama.attention.sliding_window";
    const double tokens = meta().Number(window).value_or(0);
    Require(tokens == 0 || tokens >= static_cast<double>(config.max_position_embeddings), window,
            Cat(tokens));
    const char* parallel = "llama.use_parallel_residual";
    Require(!meta().Flag(parallel).value_or(false), parallel, "true");
  }

  const io::GgufSource& source_;
};

// llama2.c's program fixes eps and the rotary base; the rotary table of the first form must agree.
constexpr double kLlama2cEps = 1e-5, kLlama2cTheta = 10000;

void RequireLlama2cRotary(const io::Llama2cSource& source, int64_t head_dim) {
  if (!source.contains("freq_cis_real") || head_dim < 4) return;
  const size_t index = source.IndexOf("freq_cis_real");
  const io::TensorInfo& info = source.infos()[index];
  if (info.shape[0] < 2) return;
  float stored[2];  // cosines of the first two frequencies at position 1
  source.ReadRange(index, static_cast<uint64_t>(info.shape[1]) * sizeof(float),
                   std::as_writable_bytes(std::span(stored)));
  if (stored[0] == 0 && stored[1] == 0) return;  // exports may leave the table empty
  const double expected = std::cos(std::pow(kLlama2cTheta, -2.0 / static_cast<double>(head_dim)));
  LWM_REQUIRE(std::fabs(stored[1] - expected) < 1e-4, source.where(),
              ": its rotary table is not of base 10000; give rope_theta with --config");
}

ModelConfig Llama2cConfig(const io::Llama2cSource& source) {
  const io::Llama2cHeader& header = source.header();
  ModelConfig config;
  config.vocab_size = header.vocab_size;
  config.hidden_size = header.dim;
  config.intermediate_size = header.hidden_dim;
  config.num_hidden_layers = header.layers;
  config.num_attention_heads = header.heads;
  config.num_key_value_heads = header.kv_heads;
  config.head_dim = header.dim / header.heads;
  config.max_position_embeddings = header.max_tokens;
  config.rms_norm_eps = kLlama2cEps;
  config.rope_theta = kLlama2cTheta;
  config.tie_word_embeddings = header.shared_classifier;
  RequireLlama2cRotary(source, config.head_dim);
  return config;
}

}  // namespace

std::optional<ModelConfig> ConfigOfSource(const io::TensorSource& source) {
  if (const auto* gguf = dynamic_cast<const io::GgufSource*>(&source))
    return GgufConfigReader(*gguf).Run();
  if (const auto* llama2c = dynamic_cast<const io::Llama2cSource*>(&source))
    return Llama2cConfig(*llama2c);
  return {};
}

}  // namespace lwm::checkpoint
