#include "lwm/checkpoint/weight_rules.h"

#include <functional>
#include <optional>
#include <regex>
#include <string_view>
#include <unordered_set>

#include "lwm/base/error.h"
#include "lwm/model/weights.h"

namespace lwm::checkpoint {
namespace {

using config::ModelConfig;
using io::TensorSource;

// "model.layers.12.mlp.up_proj.weight" -> 12 and "mlp.up_proj.weight"; else -1 and the name.
struct LayerName {
  int64_t layer = -1;
  std::string rest;
};

LayerName SplitLayer(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return {-1, name};
  const size_t dot = name.find('.', kPrefix.size());
  return {std::stoll(name.substr(kPrefix.size(), dot - kPrefix.size())), name.substr(dot + 1)};
}

// One line per weight: its name in the model, in LWM's tree, in GGUF and in llama2.c.
struct NameRow {
  std::string_view ours, lwm, gguf, llama2c;
};
constexpr NameRow kNonLayerNames[] = {
    {"model.embed_tokens.weight", "transformer/wte/embedding", "token_embd.weight",
     "token_embedding_table"},
    {"model.vision_embed_tokens.weight", "transformer/vte/embedding", "", ""},
    {"model.norm.weight", "transformer/ln_f/kernel", "output_norm.weight", "rms_final_weight"},
    {"lm_head.weight", "lm_head/kernel", "output.weight", "wcls"},
    {"vision_head.weight", "vision_head/kernel", "", ""},
};
constexpr NameRow kLayerNames[] = {
    {"input_layernorm.weight", "attention_norm/kernel", "attn_norm.weight", "rms_att_weight"},
    {"self_attn.q_proj.weight", "attention/wq/kernel", "attn_q.weight", "wq"},
    {"self_attn.k_proj.weight", "attention/wk/kernel", "attn_k.weight", "wk"},
    {"self_attn.v_proj.weight", "attention/wv/kernel", "attn_v.weight", "wv"},
    {"self_attn.o_proj.weight", "attention/wo/kernel", "attn_output.weight", "wo"},
    {"post_attention_layernorm.weight", "ffn_norm/kernel", "ffn_norm.weight", "rms_ffn_weight"},
    {"mlp.gate_proj.weight", "feed_forward/w1/kernel", "ffn_gate.weight", "w1"},
    {"mlp.up_proj.weight", "feed_forward/w3/kernel", "ffn_up.weight", "w3"},
    {"mlp.down_proj.weight", "feed_forward/w2/kernel", "ffn_down.weight", "w2"},
};

const NameRow& FindRow(const LayerName& name) {
  const std::span<const NameRow> rows = name.layer < 0 ? std::span<const NameRow>(kNonLayerNames)
                                                       : std::span<const NameRow>(kLayerNames);
  for (const NameRow& row : rows)
    if (row.ours == name.rest) return row;
  throw Error(ErrorCode::kInternal, "weight " + name.rest + " has no row in the name table");
}

using MakeRule = std::function<WeightRule(const model::TensorSpec& spec)>;

WeightRule HuggingFaceRule(const model::TensorSpec& spec) { return {.source_name = spec.name}; }

WeightRule GgufRule(const ModelConfig& config, const model::TensorSpec& spec) {
  return {.source_name = GgufNameOf(spec.name),
          .interleaved_heads = RotaryHeadsOf(config, spec.name)};
}

WeightRule Llama2cRule(const ModelConfig& config, const model::TensorSpec& spec) {
  const LayerName name = SplitLayer(spec.name);
  const NameRow& row = FindRow(name);
  LWM_REQUIRE(!row.llama2c.empty(), "llama2.c has no place for ", spec.name);
  return {.source_name = std::string(row.llama2c),
          .layer = name.layer,
          .interleaved_heads = RotaryHeadsOf(config, spec.name)};
}

// Axis of a stacked kernel that counts layers: the first, unless only the second fits (LWM's
// setting param_scan_axis, which checkpoints do not state).
int LayerAxis(const TensorSource& source, const std::string& name, int64_t layers, int64_t inputs) {
  if (!source.contains(name)) return 0;
  const auto& shape = source.info(name).shape;
  const bool second =
      shape.size() >= 2 && shape[0] == inputs && shape[1] == layers && shape[0] != shape[1];
  return second && shape[0] != layers ? 1 : 0;
}

WeightRule LwmRule(const ModelConfig& config, const TensorSource& source, const std::string& prefix,
                   const model::TensorSpec& spec) {
  const LayerName name = SplitLayer(spec.name);
  const NameRow& row = FindRow(name);
  WeightRule rule;
  rule.transpose = row.lwm.ends_with("kernel") && spec.shape.size() == 2;
  rule.interleaved_heads = RotaryHeadsOf(config, spec.name);
  rule.source_name = prefix + std::string(row.lwm);
  if (name.layer < 0) return rule;
  rule.source_name = Cat(prefix, "transformer/h/", name.layer, "/", row.lwm);
  if (source.contains(rule.source_name)) return rule;
  rule.source_name = Cat(prefix, "transformer/h/scan_decoder/", row.lwm);
  rule.layer = name.layer;
  // Kernels are [in, out], norms [D]: the size beside the layer axis is the spec's last.
  rule.layer_axis =
      LayerAxis(source, rule.source_name, config.num_hidden_layers, spec.shape.back());
  return rule;
}

// Where the parameters stand in a tree that may be a whole train state.
std::optional<std::string> LwmPrefix(const TensorSource& source) {
  for (const char* prefix : {"", "params/", "params/params/"})
    if (source.contains(Cat(prefix, "transformer/wte/embedding"))) return prefix;
  return {};
}

MakeRule RuleMaker(const ModelConfig& config, const TensorSource& source) {
  if (const auto prefix = LwmPrefix(source))
    return [&, prefix = *prefix](const model::TensorSpec& spec) {
      return LwmRule(config, source, prefix, spec);
    };
  if (source.format() == "gguf")
    return [&](const model::TensorSpec& spec) { return GgufRule(config, spec); };
  if (source.format() == "llama2c")
    return [&](const model::TensorSpec& spec) { return Llama2cRule(config, spec); };
  return HuggingFaceRule;
}

bool MayIgnore(const ModelConfig& config, const TensorSource& source, const std::string& name) {
  if (name.ends_with("rotary_emb.inv_freq")) return true;
  if (name == "freq_cis_real" || name == "freq_cis_imag") return true;
  if (name == "rope_freqs.weight")  // the factors of llama3 scaling, which the config states
    return config.rope_scaling.type == config::RopeScaling::Type::kLlama3;
  // A tied head is often stored all the same.
  if (config.tie_word_embeddings &&
      (name == "lm_head.weight" || name == "output.weight" || name.ends_with("lm_head/kernel")))
    return true;
  const auto prefix = LwmPrefix(source);
  return prefix && !prefix->empty() && !name.starts_with(*prefix);  // step, optimizer state
}

// A shard that was named instead of its folder.
bool IsShard(const TensorSource& source) {
  static const std::regex kShard(R"(.*-\d{5}-of-\d{5}\.(safetensors|bin))");
  return std::regex_match(source.where(), kShard);
}

[[noreturn]] void ThrowMissing(const TensorSource& source, const std::string& name,
                               bool is_the_first) {
  std::string hint;
  if (IsShard(source))
    hint = "; the file is one shard of several: name its folder";
  else if (is_the_first && !source.infos().empty())
    hint = Cat("; its tensors are named as ", source.infos()[0].name,
               " is, which no model does that this program runs");
  else if (name == "lm_head.weight")
    hint = "; it holds the inner model without its head: save the causal language model";
  throw Error(ErrorCode::kCorruptData, Cat(source.where(), ": weight ", name, " is missing", hint));
}

}  // namespace

std::string LwmNameOf(const std::string& weight) {
  const LayerName name = SplitLayer(weight);
  return (name.layer < 0 ? "" : "transformer/h/scan_decoder/") + std::string(FindRow(name).lwm);
}

std::string GgufNameOf(const std::string& weight) {
  const LayerName name = SplitLayer(weight);
  const NameRow& row = FindRow(name);
  LWM_REQUIRE(!row.gguf.empty(), "GGUF has no place for ", weight,
              "; a model with vision stays in another format");
  return name.layer < 0 ? std::string(row.gguf) : Cat("blk.", name.layer, ".", row.gguf);
}

int64_t RotaryHeadsOf(const ModelConfig& config, const std::string& weight) {
  if (weight.ends_with("self_attn.q_proj.weight")) return config.num_attention_heads;
  if (weight.ends_with("self_attn.k_proj.weight")) return config.num_key_value_heads;
  return 0;
}

WeightRules MakeWeightRules(const ModelConfig& config, const TensorSource& source) {
  WeightRules rules;
  const MakeRule make = RuleMaker(config, source);
  std::unordered_set<std::string> used;
  const auto add = [&](const std::vector<model::TensorSpec>& specs) {
    for (const model::TensorSpec& spec : specs) {
      WeightRule rule = make(spec);
      if (!source.contains(rule.source_name)) ThrowMissing(source, rule.source_name, used.empty());
      used.insert(rule.source_name);
      rules.emplace(spec.name, std::move(rule));
    }
  };
  add(model::NonLayerTensorSpecs(config));
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    add(model::LayerTensorSpecs(config, layer));
  // A tensor that nothing reads means that the config describes another model: refused, since the
  // result would be wrong without an error.
  for (const io::TensorInfo& info : source.infos()) {
    if (used.contains(info.name)) continue;
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, MayIgnore(config, source, info.name), source.where(),
                   ": tensor ", info.name, " ", io::ShapeText(info.shape),
                   " has no place in the model that the config describes");
  }
  return rules;
}

}  // namespace lwm::checkpoint
