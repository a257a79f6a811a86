#include "lwm/train/run_setup.h"

#include <cmath>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/data/documents.h"
#include "lwm/model/import.h"

namespace lwm::train {
namespace {

namespace fs = std::filesystem;

// Trains the tokenizer that every rank then opens.
void TrainRunTokenizer(const config::TrainConfig& config, const fs::path& file) {
  data::TokenizerTraining training;
  for (const data::DocumentFile& document : data::FindDocuments(config.data.train))
    training.inputs.push_back(document.path);
  training.vocab_size = static_cast<int32_t>(config.data.train_tokenizer_vocab);
  WriteFileAtomically(file, data::TrainTokenizer(training));
}

data::LoaderConfig MakeLoaderConfig(const config::TrainConfig& config) {
  const config::DataSection& section = config.data;
  data::SourceConfig source;
  source.fields = section.fields;
  source.min_document_tokens = section.min_document_tokens;
  source.max_document_tokens = section.max_document_tokens;
  source.max_frames = section.max_frames;
  data::LoaderConfig loader;
  if (section.weights.empty()) {
    source.paths = section.train;
    loader.sources = {source};
  }
  for (size_t i = 0; i < section.weights.size(); ++i) {
    source.paths = {section.train[i]};
    source.share = section.weights[i];
    loader.sources.push_back(source);
  }
  loader.packing.row_tokens = section.row_tokens;
  loader.packing.policy = data::ParsePackingPolicy(section.packing);
  if (section.loss != "auto") loader.packing.normaliser = data::ParseLossNormaliser(section.loss);
  loader.seed = static_cast<uint64_t>(config.train.seed);
  loader.held_out_fraction = section.held_out_fraction;
  loader.held_out_paths = section.held_out;
  loader.skip_bad_lines = section.skip_bad_lines;
  loader.cache =
      section.cache.empty() ? fs::path(config.train.run_folder) / "cache" : fs::path(section.cache);
  return loader;
}

InitOptions MakeInitOptions(const config::TrainConfig& config, const config::ModelConfig& model) {
  InitOptions options;
  options.seed = static_cast<uint64_t>(config.train.seed);
  options.table_std = options.matrix_std = config.model.initializer_range;
  if (config.model.initializer == "scaled") {
    options.matrix_std = 1 / std::sqrt(static_cast<double>(model.hidden_size));
    options.residual_scale = 1 / std::sqrt(2.0 * static_cast<double>(model.num_hidden_layers));
  }
  return options;
}

bool IsVisionTensor(const std::string& name) {
  return name == "model.vision_embed_tokens.weight" || name == "vision_head.weight";
}

}  // namespace

void PrepareRunFolder(const fs::path& run_folder, dist::Communicator& world) {
  if (world.rank() == 0) {
    std::error_code error;
    fs::create_directories(run_folder, error);
    LWM_REQUIRE(!error, "train.run_folder: cannot create ", run_folder.string(), ": ",
                error.message());
    const fs::path probe = run_folder / ".writable";
    WriteFileAtomically(probe, "");
    fs::remove(probe, error);
  }
  world.Barrier();
}

std::shared_ptr<const data::Tokenizer> PrepareTokenizer(const config::TrainConfig& config,
                                                        const std::optional<fs::path>& checkpoint,
                                                        dist::Communicator& world) {
  if (checkpoint) return data::OpenTokenizer(*checkpoint);
  if (config.data.train_tokenizer_vocab == 0)
    return data::OpenTokenizer(config.data.tokenizer.empty() ? config.model.init
                                                             : config.data.tokenizer);
  const fs::path file = fs::path(config.train.run_folder) / "tokenizer.model";
  if (world.rank() == 0) TrainRunTokenizer(config, file);
  world.Barrier();
  return data::OpenTokenizer(file);
}

config::ModelConfig PrepareModel(const config::TrainConfig& config,
                                 const std::optional<fs::path>& checkpoint,
                                 const data::Tokenizer& tokenizer) {
  if (config.model.init.empty())
    return config::ResolveModelConfig(config, nullptr, tokenizer.vocab_size());
  const auto source = model::OpenModel(checkpoint.value_or(config.model.init));
  return config::ResolveModelConfig(config, &source->config(), tokenizer.vocab_size());
}

std::unique_ptr<data::RowLoader> OpenRows(const config::TrainConfig& config,
                                          std::shared_ptr<const data::Tokenizer> tokenizer,
                                          dist::Communicator& world) {
  const data::LoaderConfig loader = MakeLoaderConfig(config);
  std::unique_ptr<data::RowLoader> rows;
  if (world.rank() == 0) rows = std::make_unique<data::RowLoader>(loader, tokenizer);
  world.Barrier();
  if (world.rank() != 0) rows = std::make_unique<data::RowLoader>(loader, tokenizer);
  return rows;
}

void InitWeights(const config::TrainConfig& config, ShardedWeights& weights) {
  const bool from_file = !config.model.init.empty();
  if (!from_file || weights.config().has_vision())
    weights.InitRandom(MakeInitOptions(config, weights.config()));
  if (!from_file) return;
  const auto source = model::OpenModel(config.model.init);
  const bool has_vision = source->config().has_vision();
  weights.Load([&](const model::TensorSpec& spec) {
    return IsVisionTensor(spec.name) && !has_vision ? at::Tensor() : source->Read(spec);
  });
}

}  // namespace lwm::train
