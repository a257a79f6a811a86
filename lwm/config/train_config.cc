#include "lwm/config/train_config.h"

#include "lwm/base/error.h"
#include "lwm/config/recipe.h"

namespace lwm::config {
namespace {

constexpr char kHelp[] = "lwm train --help";

TrainConfig FromDocument(const TomlDocument& document, const std::string& where,
                         const std::vector<std::string>& overrides) {
  TrainConfig config;
  ApplyDocument(document, where, kHelp, config);
  for (const std::string& text : overrides) ApplyOverride(text, kHelp, config);
  config.Validate();
  return config;
}

}  // namespace

TrainConfig ParseTrainConfig(std::string_view toml, const std::string& where,
                             const std::vector<std::string>& overrides) {
  return FromDocument(ParseToml(toml, where), where, overrides);
}

TrainConfig ReadTrainConfig(const std::filesystem::path& recipe,
                            const std::vector<std::string>& overrides) {
  return FromDocument(ReadTomlFile(recipe), recipe.string(), overrides);
}

int64_t TrainConfig::RowsPerBatch() const {
  return train.rows_per_step > 0 ? train.rows_per_step : train.tokens_per_step / data.row_tokens;
}

std::vector<std::string> DataSection::TrainPaths() const {
  std::vector<std::string> paths = train;
  for (const SourceTable& table : source)
    paths.insert(paths.end(), table.paths.begin(), table.paths.end());
  return paths;
}

namespace {

void ValidateSources(const DataSection& data) {
  LWM_REQUIRE(data.source.empty() || (data.train.empty() && data.weights.empty()),
              "data.source and data.train exclude each other: give one");
  for (size_t i = 0; i < data.source.size(); ++i) {
    LWM_REQUIRE(!data.source[i].paths.empty(), "data.source[", i, "].paths is missing");
    LWM_REQUIRE(data.source[i].share > 0, "data.source[", i, "].share is 0: leave the source out");
  }
  LWM_REQUIRE(!data.vqgan.empty() || data.frame_size == 0,
              "data.frame_size is for data.vqgan, which is missing");
  LWM_REQUIRE(data.vqgan.empty() || (data.codes_per_frame == 0 && data.codebook_size == 0),
              "data.codes_per_frame and data.codebook_size follow from data.vqgan: leave them out");
}

}  // namespace

void TrainConfig::Validate() const {
  train.Validate();
  optimizer.Validate();
  LWM_REQUIRE(!data.train.empty() || !data.source.empty(),
              "data.train is missing: which files should it train on?");
  ValidateSources(data);
  LWM_REQUIRE(data.weights.empty() || data.weights.size() == data.train.size(), "data.weights has ",
              data.weights.size(), " entries and data.train ", data.train.size(),
              ": give one weight for each");
  for (size_t i = 0; i < data.weights.size(); ++i)
    LWM_REQUIRE(data.weights[i] > 0, "data.weights[", i, "] is 0: leave ", data.train[i],
                " out of data.train");
  LWM_REQUIRE(data.held_out.empty() || data.held_out_fraction == 0,
              "data.held_out and data.held_out_fraction exclude each other: give one");
  LWM_REQUIRE(data.tokenizer.empty() || data.train_tokenizer_vocab == 0,
              "data.tokenizer and data.train_tokenizer_vocab exclude each other: give one");
  LWM_REQUIRE(
      model.init.empty() || data.train_tokenizer_vocab == 0 || model.replace_tokenizer,
      "data.train_tokenizer_vocab makes new token ids, which mean nothing to the weights of "
      "model.init: leave it out, and data.tokenizer too, to use the model's own tokenizer "
      "(or set model.replace_tokenizer = true)");
  LWM_REQUIRE(!data.tokenizer.empty() || data.train_tokenizer_vocab > 0 || !model.init.empty(),
              "no tokenizer: give data.tokenizer, data.train_tokenizer_vocab or model.init");
  LWM_REQUIRE((train.rows_per_step > 0) != (train.tokens_per_step > 0),
              "give one of train.rows_per_step and train.tokens_per_step, the global batch");
  LWM_REQUIRE(train.rows_per_step > 0 || train.tokens_per_step % data.row_tokens == 0,
              "train.tokens_per_step = ", train.tokens_per_step,
              " is no multiple of data.row_tokens = ", data.row_tokens);
  for (const std::string& part : optimizer.no_decay)
    LWM_REQUIRE(!part.empty(), "optimizer.no_decay holds \"\", which is part of every name and ",
                "would switch weight decay off: write [] for no exception, or ",
                "optimizer.weight_decay = 0");
  LWM_REQUIRE(!pictures.is_used() || !data.vqgan.empty(),
              "[pictures] needs data.vqgan, which turns codes into images");
  LWM_REQUIRE(optimizer.decay_steps == 0 || optimizer.decay_steps >= optimizer.warmup_steps,
              "optimizer.decay_steps = ", optimizer.decay_steps,
              " counts the warm-up and must not be less than optimizer.warmup_steps = ",
              optimizer.warmup_steps);
}

namespace {

void RequireSize(int64_t value, const char* key) {
  LWM_REQUIRE(value > 0, "model.", key, " is missing: give all sizes of the model, or model.init");
}

ModelConfig FromSizes(const ModelSection& model, int64_t row_tokens, int64_t tokenizer_vocab) {
  RequireSize(model.hidden_size, "hidden_size");
  RequireSize(model.intermediate_size, "intermediate_size");
  RequireSize(model.num_hidden_layers, "num_hidden_layers");
  RequireSize(model.num_attention_heads, "num_attention_heads");
  LWM_REQUIRE(model.head_dim > 0 || model.hidden_size % model.num_attention_heads == 0,
              "model.hidden_size = ", model.hidden_size,
              " is no multiple of model.num_attention_heads = ", model.num_attention_heads,
              ": change one or give model.head_dim");
  ModelConfig config;
  config.vocab_size = model.vocab_size > 0 ? model.vocab_size : tokenizer_vocab;
  config.vision_vocab_size = model.vision_vocab_size;
  config.hidden_size = model.hidden_size;
  config.intermediate_size = model.intermediate_size;
  config.num_hidden_layers = model.num_hidden_layers;
  config.num_attention_heads = model.num_attention_heads;
  config.num_key_value_heads =
      model.num_key_value_heads > 0 ? model.num_key_value_heads : model.num_attention_heads;
  config.head_dim =
      model.head_dim > 0 ? model.head_dim : model.hidden_size / model.num_attention_heads;
  config.max_position_embeddings =
      model.max_position_embeddings > 0 ? model.max_position_embeddings : row_tokens;
  if (model.rope_theta > 0) config.rope_theta = model.rope_theta;
  if (model.rms_norm_eps > 0) config.rms_norm_eps = model.rms_norm_eps;
  config.tie_word_embeddings = model.tie_word_embeddings;
  config.initializer_range = model.initializer_range;
  return config;
}

// A size given beside model.init is a claim about it.
void RequireAgrees(int64_t given, int64_t stored, const char* key, const std::string& init) {
  LWM_REQUIRE(given == 0 || given == stored, "model.", key, " = ", given, " but ", init, " has ",
              stored, ": leave it out");
}

ModelConfig FromInit(const ModelSection& model, ModelConfig config) {
  RequireAgrees(model.vocab_size, config.vocab_size, "vocab_size", model.init);
  RequireAgrees(model.hidden_size, config.hidden_size, "hidden_size", model.init);
  RequireAgrees(model.intermediate_size, config.intermediate_size, "intermediate_size", model.init);
  RequireAgrees(model.num_hidden_layers, config.num_hidden_layers, "num_hidden_layers", model.init);
  RequireAgrees(model.num_attention_heads, config.num_attention_heads, "num_attention_heads",
                model.init);
  RequireAgrees(model.num_key_value_heads, config.num_key_value_heads, "num_key_value_heads",
                model.init);
  RequireAgrees(model.head_dim, config.head_dim, "head_dim", model.init);
  LWM_REQUIRE(model.vision_vocab_size == 0 || !config.has_vision() ||
                  model.vision_vocab_size == config.vision_vocab_size,
              "model.vision_vocab_size = ", model.vision_vocab_size, " but ", model.init, " has ",
              config.vision_vocab_size, ": leave it out");
  LWM_REQUIRE(!model.tie_word_embeddings || config.tie_word_embeddings,
              "model.tie_word_embeddings = true but ", model.init,
              " has a head of its own: leave it out");
  if (model.vision_vocab_size > 0) config.vision_vocab_size = model.vision_vocab_size;
  if (model.max_position_embeddings > 0)
    config.max_position_embeddings = model.max_position_embeddings;
  if (model.rope_theta > 0) config.rope_theta = model.rope_theta;
  if (model.rms_norm_eps > 0) config.rms_norm_eps = model.rms_norm_eps;
  return config;
}

}  // namespace

ModelConfig ResolveModelConfig(const TrainConfig& config, const ModelConfig* init,
                               int64_t tokenizer_vocab) {
  const ModelSection& section = config.model;
  const ModelConfig model = init == nullptr
                                ? FromSizes(section, config.data.row_tokens, tokenizer_vocab)
                                : FromInit(section, *init);
  const int64_t padded_vocab = (tokenizer_vocab + 511) / 512 * 512;
  LWM_REQUIRE(tokenizer_vocab == 0 ||
                  (model.vocab_size >= tokenizer_vocab && model.vocab_size <= padded_vocab),
              "the tokenizer has ", tokenizer_vocab, " ids but the model's vocab_size is ",
              model.vocab_size, ": use the model's own tokenizer",
              init == nullptr ? ", or leave model.vocab_size out" : "");
  LWM_REQUIRE(
      config.data.row_tokens <= model.max_position_embeddings,
      "data.row_tokens = ", config.data.row_tokens,
      " is longer than the model's max_position_embeddings = ", model.max_position_embeddings,
      ": shorten the rows or raise model.max_position_embeddings");
  model.Validate();
  return model;
}

Json TrainConfigToJson(const TrainConfig& config) { return RecipeToJson(config); }

std::vector<std::string> TrainConfigKeys() { return RecipeKeys<TrainConfig>(); }

std::string TrainConfigHelp() {
  SourceTable source;
  return RecipeHelp<TrainConfig>() +
         "[[data.source]]  one source of a mixture, as often as there are sources\n" +
         SectionHelp(source);
}

std::string TrainConfigTemplate() { return RecipeTemplate<TrainConfig>("lwm train"); }

}  // namespace lwm::config
