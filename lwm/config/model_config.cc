#include "lwm/config/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lwm/base/error.h"
#include "lwm/config/unsupported_settings.h"

namespace lwm::config {
namespace {

using Type = RopeScaling::Type;

struct TypeName {
  Type type;
  const char* name;
};
constexpr TypeName kTypeNames[] = {{Type::kDefault, "default"},
                                   {Type::kLinear, "linear"},
                                   {Type::kDynamic, "dynamic"},
                                   {Type::kYarn, "yarn"},
                                   {Type::kLlama3, "llama3"}};

// One JSON object with the name of its source: every complaint names both source and field.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  bool Has(const std::string& key) const {
    return object_.contains(key) && !object_.at(key).is_null();
  }

  int64_t Integer(const std::string& key) const {
    if (!Has(key)) Fail(key, "is missing");
    const Json& value = object_.at(key);
    const bool fits =
        value.is_number_integer() && !(value.is_number_unsigned() &&
                                       value.get<uint64_t>() > std::numeric_limits<int64_t>::max());
    if (!fits) Fail(key, "must be an integer, is " + Show(value));
    return value.get<int64_t>();
  }
  int64_t Integer(const std::string& key, int64_t otherwise) const {
    return Has(key) ? Integer(key) : otherwise;
  }

  double Number(const std::string& key, double otherwise) const {
    if (!Has(key)) return otherwise;
    const Json& value = object_.at(key);
    if (!value.is_number()) Fail(key, "must be a number, is " + Show(value));
    return value.get<double>();
  }
  double Number(const std::string& key) const {
    if (!Has(key)) Fail(key, "is missing");
    return Number(key, 0.0);
  }

  bool Flag(const std::string& key, bool otherwise) const {
    if (!Has(key)) return otherwise;
    if (!object_.at(key).is_boolean())
      Fail(key, "must be true or false, is " + Show(object_.at(key)));
    return object_.at(key).get<bool>();
  }

  std::string Text(const std::string& key, const std::string& otherwise) const {
    if (!Has(key)) return otherwise;
    if (!object_.at(key).is_string()) Fail(key, "must be a string, is " + Show(object_.at(key)));
    return object_.at(key).get<std::string>();
  }

  // Token ids: one, or a list of them; null says that there is none, which is -1.
  std::vector<int64_t> TokenIds(const std::string& key, int64_t otherwise) const {
    if (object_.contains(key) && object_.at(key).is_null()) return {-1};
    if (!Has(key) || !object_.at(key).is_array()) return {Integer(key, otherwise)};
    const Json& list = object_.at(key);
    std::vector<int64_t> ids;
    for (const Json& id : list)
      if (id.is_number_integer()) ids.push_back(id.get<int64_t>());
    if (list.empty() || ids.size() != list.size())
      Fail(key, "must be an integer or a list of integers, is " + Show(list));
    return ids;
  }

  const Json& Object(const std::string& key) const {
    if (!object_.at(key).is_object()) Fail(key, "must be an object, is " + Show(object_.at(key)));
    return object_.at(key);
  }

  [[noreturn]] void Fail(const std::string& key, const std::string& problem) const {
    ThrowJsonField(where_, key, problem);
  }
  const std::string& where() const { return where_; }

 private:
  static std::string Show(const Json& value) { return value.dump().substr(0, 60); }

  const Json& object_;
  std::string where_;
};

Type ParseRopeType(const Fields& rope) {
  const char* key = rope.Has("rope_type") ? "rope_type" : "type";
  const std::string name = rope.Text(key, "default");
  for (const TypeName& known : kTypeNames)
    if (name == known.name) return known.type;
  rope.Fail(key, "is \"" + name + "\"; known are default, linear, dynamic, yarn, llama3");
}

double ParseYarnAttentionFactor(const Fields& rope, double factor) {
  if (rope.Has("attention_factor")) return rope.Number("attention_factor");
  const double mscale = rope.Number("mscale", 0), all_dim = rope.Number("mscale_all_dim", 0);
  if (mscale == 0 || all_dim == 0) return 0;
  const double log_factor = factor > 1 ? 0.1 * std::log(factor) : 0;
  return (mscale * log_factor + 1) / (all_dim * log_factor + 1);
}

RopeScaling ParseRopeScaling(const Fields& rope, int64_t max_position_embeddings) {
  RopeScaling scaling;
  scaling.type = ParseRopeType(rope);
  if (rope.Number("partial_rotary_factor", 1) != 1)
    rope.Fail("partial_rotary_factor", "must be 1: partly rotated heads are not supported");
  if (scaling.type == Type::kDefault) return scaling;
  scaling.original_max_position_embeddings = rope.Number("original_max_position_embeddings", 0);
  const bool implied = scaling.type == Type::kYarn && !rope.Has("factor") &&
                       scaling.original_max_position_embeddings > 0;
  scaling.factor = implied ? static_cast<double>(max_position_embeddings) /
                                 scaling.original_max_position_embeddings
                           : rope.Number("factor");
  if (scaling.type == Type::kYarn) {
    scaling.attention_factor = ParseYarnAttentionFactor(rope, scaling.factor);
    scaling.beta_fast = rope.Number("beta_fast", scaling.beta_fast);
    scaling.beta_slow = rope.Number("beta_slow", scaling.beta_slow);
    scaling.truncate = rope.Flag("truncate", true);
  }
  if (scaling.type == Type::kLlama3) {
    scaling.low_freq_factor = rope.Number("low_freq_factor");
    scaling.high_freq_factor = rope.Number("high_freq_factor");
    if (!rope.Has("original_max_position_embeddings"))
      rope.Fail("original_max_position_embeddings", "is missing");
  }
  return scaling;
}

void ParseRope(const Fields& fields, ModelConfig& config) {
  config.rope_theta = fields.Number("rope_theta", config.rope_theta);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (!fields.Has(key)) continue;
    const Fields rope(fields.Object(key), Cat(fields.where(), ": ", key));
    config.rope_theta = rope.Number("rope_theta", config.rope_theta);
    config.rope_scaling = ParseRopeScaling(rope, config.max_position_embeddings);
    RefuseUnknownRopeSettings(fields.Object(key), rope.where());
    return;
  }
}

void RequireKnownArchitecture(const Fields& fields, const Json& json) {
  const std::string type = fields.Text("model_type", "");
  const Json llama = Json::array({"LlamaForCausalLM"});
  if (type != "lwm" && fields.Has("architectures") && json.at("architectures") != llama)
    fields.Fail("architectures",
                "is " + json.at("architectures").dump() +
                    "; LlamaForCausalLM and model_type \"lwm\" (text and vision) run");
  if (type != "lwm" && type != "llama" && !(type.empty() && fields.Has("architectures")))
    fields.Fail("model_type", (type.empty() ? "is missing" : "is \"" + type + "\"") +
                                  "; \"llama\" (text) and \"lwm\" (text and vision) run");
}

void ParseHeads(const Fields& fields, ModelConfig& config) {
  config.num_attention_heads = fields.Integer("num_attention_heads");
  if (config.num_attention_heads < 1)
    fields.Fail("num_attention_heads", Cat("must be at least 1, is ", config.num_attention_heads));
  config.num_key_value_heads = fields.Integer("num_key_value_heads", config.num_attention_heads);
  if (!fields.Has("head_dim") && config.hidden_size % config.num_attention_heads != 0)
    fields.Fail("head_dim",
                Cat("is missing and hidden_size ", config.hidden_size,
                    " is not a multiple of num_attention_heads ", config.num_attention_heads));
  config.head_dim = fields.Integer("head_dim", config.hidden_size / config.num_attention_heads);
}

void RequireInRange(const char* field, int64_t value, int64_t low, int64_t high) {
  LWM_REQUIRE(value >= low && value <= high, "model config: ", field, " must be from ", low, " to ",
              high, ", is ", value);
}

void RequireFinite(const char* field, double value, double low, double high, const char* wanted) {
  LWM_REQUIRE(value >= low && value <= high, "model config: ", field, " must be ", wanted, ", is ",
              value);
}

void ValidateRope(const ModelConfig& config) {
  constexpr double kLargest = 1e15;
  const RopeScaling& scaling = config.rope_scaling;
  RequireFinite("rope_theta", config.rope_theta, std::nextafter(1.0, 2.0), kLargest,
                "more than 1 and at most 1e15");
  if (scaling.type == Type::kDefault) return;
  RequireFinite("rope scaling's factor", scaling.factor, 1, 1e9, "from 1 to 1e9");
  RequireFinite("rope scaling's original_max_position_embeddings",
                scaling.original_max_position_embeddings, 0, kLargest, "from 0 to 1e15");
  if (scaling.type == Type::kDynamic)
    LWM_REQUIRE(config.head_dim > 2, "model config: dynamic rope scaling needs head_dim > 2");
  if (scaling.type == Type::kYarn) {
    RequireFinite("rope scaling's attention_factor", scaling.attention_factor, 0, 1e6,
                  "from 0 (the default) to 1e6");
    RequireFinite("rope scaling's beta_slow", scaling.beta_slow, 1e-6, 1e6, "from 1e-6 to 1e6");
    RequireFinite("rope scaling's beta_fast", scaling.beta_fast, scaling.beta_slow, 1e6,
                  "from beta_slow to 1e6");
  }
  if (scaling.type == Type::kLlama3) {
    RequireFinite("rope scaling's original_max_position_embeddings",
                  scaling.original_max_position_embeddings, 1, kLargest, "from 1 to 1e15");
    RequireFinite("rope scaling's low_freq_factor", scaling.low_freq_factor, 1e-6, 1e6,
                  "from 1e-6 to 1e6");
    LWM_REQUIRE(
        scaling.high_freq_factor > scaling.low_freq_factor && scaling.high_freq_factor < 1e7,
        "model config: rope scaling's high_freq_factor must be more than low_freq_factor ",
        scaling.low_freq_factor, ", is ", scaling.high_freq_factor);
  }
}

Json TokenIdToJson(int64_t id) { return id < 0 ? Json() : Json(id); }

Json EosToJson(const ModelConfig& config) {
  if (config.more_eos_token_ids.empty()) return TokenIdToJson(config.eos_token_id);
  std::vector<int64_t> ids = {config.eos_token_id};
  ids.insert(ids.end(), config.more_eos_token_ids.begin(), config.more_eos_token_ids.end());
  return ids;
}

Json RopeToJson(const RopeScaling& scaling) {
  Json rope = Json::object();
  for (const TypeName& known : kTypeNames)
    if (known.type == scaling.type) rope["rope_type"] = known.name;
  if (scaling.type == Type::kDefault) return rope;
  rope["factor"] = scaling.factor;
  if (scaling.original_max_position_embeddings > 0) {
    const double tokens = scaling.original_max_position_embeddings;
    if (tokens == std::floor(tokens))
      rope["original_max_position_embeddings"] = static_cast<int64_t>(tokens);
    else
      rope["original_max_position_embeddings"] = tokens;
  }
  if (scaling.type == Type::kYarn) {
    rope["beta_fast"] = scaling.beta_fast;
    rope["beta_slow"] = scaling.beta_slow;
    rope["truncate"] = scaling.truncate;
    if (scaling.attention_factor > 0) rope["attention_factor"] = scaling.attention_factor;
  }
  if (scaling.type == Type::kLlama3) {
    rope["low_freq_factor"] = scaling.low_freq_factor;
    rope["high_freq_factor"] = scaling.high_freq_factor;
  }
  return rope;
}

}  // namespace

int64_t ModelConfig::ParameterCount() const {
  const int64_t query = num_attention_heads * head_dim, key = num_key_value_heads * head_dim;
  const int64_t attention = hidden_size * (2 * query + 2 * key);
  const int64_t layer = attention + 3 * hidden_size * intermediate_size + 2 * hidden_size;
  const int64_t text = (tie_word_embeddings ? 1 : 2) * vocab_size * hidden_size;
  return num_hidden_layers * layer + text + 2 * vision_vocab_size * hidden_size + hidden_size;
}

bool ModelConfig::EndsText(int64_t token_id) const {
  const auto& more = more_eos_token_ids;
  return token_id == eos_token_id || std::find(more.begin(), more.end(), token_id) != more.end();
}

void ModelConfig::Validate() const {
  // The upper limits keep every product of sizes, and the parameter count, within int64.
  RequireInRange("vocab_size", vocab_size, 1, int64_t{1} << 28);
  RequireInRange("vision_vocab_size", vision_vocab_size, 0, int64_t{1} << 28);
  RequireInRange("codes_per_frame", codes_per_frame, 0, int64_t{1} << 24);
  RequireInRange("hidden_size", hidden_size, 1, int64_t{1} << 20);
  RequireInRange("intermediate_size", intermediate_size, 1, int64_t{1} << 22);
  RequireInRange("num_hidden_layers", num_hidden_layers, 1, int64_t{1} << 14);
  RequireInRange("num_attention_heads", num_attention_heads, 1, int64_t{1} << 12);
  RequireInRange("num_key_value_heads", num_key_value_heads, 1, num_attention_heads);
  RequireInRange("head_dim", head_dim, 2, int64_t{1} << 12);
  RequireInRange("max_position_embeddings", max_position_embeddings, 1,
                 std::numeric_limits<int32_t>::max());
  LWM_REQUIRE(num_attention_heads % num_key_value_heads == 0, "model config: num_attention_heads ",
              num_attention_heads, " must be a multiple of num_key_value_heads ",
              num_key_value_heads);
  LWM_REQUIRE(head_dim % 2 == 0, "model config: head_dim must be even (rotary pairs), is ",
              head_dim);
  RequireFinite("rms_norm_eps", rms_norm_eps, 1e-30, 1, "from 1e-30 to 1");
  RequireFinite("initializer_range", initializer_range, 0, 1e3, "from 0 to 1000");
  ValidateRope(*this);
}

ModelConfig ParseModelConfig(const Json& json, const std::string& where) {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, json.is_object(), where,
                 ": a model config must be a JSON object");
  const Fields fields(json, where);
  RequireKnownArchitecture(fields, json);
  ModelConfig config;
  config.vocab_size = fields.Integer("vocab_size");
  if (fields.Text("model_type", "") == "lwm") {
    config.vision_vocab_size = fields.Integer("vision_vocab_size");
  } else if (fields.Has("vision_vocab_size")) {
    fields.Fail("vision_vocab_size", "needs \"model_type\": \"lwm\"");
  }
  config.hidden_size = fields.Integer("hidden_size");
  config.intermediate_size = fields.Integer("intermediate_size");
  config.num_hidden_layers = fields.Integer("num_hidden_layers");
  ParseHeads(fields, config);
  config.max_position_embeddings = fields.Integer("max_position_embeddings");
  config.rms_norm_eps = fields.Number("rms_norm_eps", config.rms_norm_eps);
  ParseRope(fields, config);
  config.tie_word_embeddings = fields.Flag("tie_word_embeddings", config.tie_word_embeddings);
  config.initializer_range = fields.Number("initializer_range", config.initializer_range);
  config.bos_token_id = fields.TokenIds("bos_token_id", config.bos_token_id).front();
  const std::vector<int64_t> eos = fields.TokenIds("eos_token_id", config.eos_token_id);
  config.eos_token_id = eos.front();
  config.more_eos_token_ids.assign(eos.begin() + 1, eos.end());
  if (config.has_vision()) config.codes_per_frame = fields.Integer("codes_per_frame", 0);
  try {
    config.Validate();
  } catch (const Error& error) {
    throw Error(ErrorCode::kCorruptData, Cat(where, ": ", error.what()));
  }
  RefuseUnsupportedSettings(json, config, where);
  return config;
}

ModelConfig ReadModelConfig(const std::filesystem::path& file) {
  return ParseModelConfig(ReadJsonFile(file), file.string());
}

Json ModelConfigToJson(const ModelConfig& config, const std::string& dtype) {
  Json rope = RopeToJson(config.rope_scaling);
  Json json = {
      {"model_type", config.has_vision() ? "lwm" : "llama"},
      {"architectures", Json::array({config.has_vision() ? "LwmForCausalLM" : "LlamaForCausalLM"})},
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"num_hidden_layers", config.num_hidden_layers},
      {"num_attention_heads", config.num_attention_heads},
      {"num_key_value_heads", config.num_key_value_heads},
      {"head_dim", config.head_dim},
      {"max_position_embeddings", config.max_position_embeddings},
      {"rms_norm_eps", config.rms_norm_eps},
      {"rope_theta", config.rope_theta},
      {"rope_scaling", config.rope_scaling.type == Type::kDefault ? Json() : rope},
      {"tie_word_embeddings", config.tie_word_embeddings},
      {"initializer_range", config.initializer_range},
      {"bos_token_id", TokenIdToJson(config.bos_token_id)},
      {"eos_token_id", EosToJson(config)},
      {"hidden_act", "silu"},
      {"attention_bias", false},
      {"mlp_bias", false},
      {"dtype", dtype},
      {"torch_dtype", dtype},
  };
  if (config.has_vision()) json["vision_vocab_size"] = config.vision_vocab_size;
  if (config.codes_per_frame > 0) json["codes_per_frame"] = config.codes_per_frame;
  rope["rope_theta"] = config.rope_theta;
  json["rope_parameters"] = rope;
  return json;
}

}  // namespace lwm::config
