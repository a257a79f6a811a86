#include "lwm/train/run_setup.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/folder_lock.h"
#include "lwm/base/pace.h"
#include "lwm/base/text.h"
#include "lwm/checkpoint/import.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/config/generation_config.h"
#include "lwm/data/code_cache.h"
#include "lwm/data/documents.h"
#include "lwm/data/tokenizer_difference.h"
#include "lwm/data/tokenizer_files.h"
#include "lwm/data/tokenizer_sentencepiece.h"

namespace lwm::train {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBufferRows = 64;  // that packing chooses from

// Trains the tokenizer that every rank then opens.
void TrainRunTokenizer(const config::TrainConfig& config, const fs::path& file) {
  data::TokenizerTraining training;
  for (const data::DocumentFile& document : data::FindDocuments(config.data.TrainPaths()).files)
    training.inputs.push_back(document.path);
  training.vocab_size = static_cast<int32_t>(config.data.train_tokenizer_vocab);
  // Files of an earlier run in this folder would change the new tokenizer's settings.
  for (const char* name : {"tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"})
    fs::remove(file.parent_path() / name);
  WriteFileAtomically(file, data::TrainTokenizer(training));
}

data::SourceConfig MakeSource(const config::DataSection& section,
                              const config::SourceTable& table) {
  const auto either = [](const auto& own, const auto& common) {
    return own == std::decay_t<decltype(own)>() ? common : own;
  };
  data::SourceConfig source;
  source.paths = table.paths;
  source.share = table.share;
  source.fields = either(table.fields, section.fields);
  source.min_document_tokens = either(table.min_document_tokens, section.min_document_tokens);
  source.max_document_tokens = either(table.max_document_tokens, section.max_document_tokens);
  source.max_frames = either(table.max_frames, section.max_frames);
  source.prepend_text = table.prepend_text;
  source.drop_text = table.drop_text;
  source.order_by_visit = table.order == "epoch";
  source.line_weights = table.line_weights;
  return source;
}

// The tables of the recipe; without them one for all of data.train, or one for each of its entries.
std::vector<data::SourceConfig> MakeSources(const config::DataSection& section) {
  std::vector<config::SourceTable> tables = section.source;
  if (tables.empty() && section.weights.empty()) {
    tables.emplace_back();
    tables.back().paths = section.train;
  }
  for (size_t i = 0; i < section.weights.size(); ++i) {
    tables.emplace_back();
    tables.back().paths = {section.train[i]};
    tables.back().share = section.weights[i];
  }
  std::vector<data::SourceConfig> sources;
  for (const config::SourceTable& table : tables) sources.push_back(MakeSource(section, table));
  return sources;
}

data::LoaderConfig MakeLoaderConfig(const config::TrainConfig& config) {
  const config::DataSection& section = config.data;
  data::LoaderConfig loader;
  loader.sources = MakeSources(section);
  loader.packing.row_tokens = section.row_tokens;
  // Enough for full rows; what waits is noted anew with every row.
  loader.packing.buffer_tokens =
      std::min(loader.packing.buffer_tokens, kBufferRows * section.row_tokens);
  loader.packing.policy = data::ParsePackingPolicy(section.packing);
  if (section.loss != "auto") loader.packing.normaliser = data::ParseLossNormaliser(section.loss);
  loader.seed = static_cast<uint64_t>(config.train.seed);
  loader.held_out_fraction = section.held_out_fraction;
  loader.held_out_paths = section.held_out;
  loader.skip_bad_lines = section.skip_bad_lines;
  loader.allow_changed = section.allow_changed;
  if (section.codes_per_frame > 0) loader.codes_per_frame = section.codes_per_frame;
  if (section.codebook_size > 0) loader.codebook_size = section.codebook_size;
  loader.cache =
      section.cache.empty() ? fs::path(config.train.run_folder) / "cache" : fs::path(section.cache);
  return loader;
}

// The VQGAN of the recipe, or nullptr.
std::shared_ptr<data::CodeCache> OpenMedia(const config::TrainConfig& config) {
  const config::DataSection& section = config.data;
  if (section.vqgan.empty()) return nullptr;
  data::CodeCacheOptions options;
  options.vqgan = section.vqgan;
  options.folder = section.code_cache.empty() ? fs::path(config.train.run_folder) / "code_cache"
                                              : fs::path(section.code_cache);
  options.frame_size = section.frame_size;
  options.dtype = section.vqgan_dtype;
  return std::make_shared<data::CodeCache>(options);
}

// Every rank encodes its part of the lines; afterwards all are in the cache.
void EncodeAhead(const data::RowLoader& rows, data::CodeCache& media, dist::Communicator& world,
                 const std::function<void(const std::string&)>& log) {
  Pace pace(/*seconds_between_lines=*/5);
  rows.EncodeMedia(world.rank(), world.size(), [&](int64_t done, int64_t total) {
    if (!pace.is_due()) return;
    pace.Shown();
    log(Cat("encoding media: ", done, " of ", CountOf(total, "line"), " of this rank, ",
            pace.Left(static_cast<double>(done) / static_cast<double>(total))));
  });
  media.Unload();
  double frames = static_cast<double>(media.counts().frames);
  world.AllReduceSum(std::span(&frames, 1));
  if (frames > 0)
    log(Cat("encoded ", CountOf(static_cast<int64_t>(frames), "frame"), " of media in ",
            FormatDuration(pace.seconds())));
}

// Codes that the model has no row for would be found only where they occur.
void RequireVisionFits(const config::TrainConfig& config, const config::ModelConfig& model) {
  const config::DataSection& data = config.data;
  int64_t codes = data.codebook_size;
  if (!data.vqgan.empty()) codes = checkpoint::OpenVqgan(data.vqgan)->config().num_vq_embeddings;
  LWM_REQUIRE(codes == 0 || model.vision_vocab_size >= codes + 2, "model.vision_vocab_size is ",
              model.vision_vocab_size, ", but the codebook has ", codes,
              " codes and frames end with one of two more: it must be at least ", codes + 2);
}

// Codes of a frame in the data; 0 when the recipe does not say.
int64_t CodesPerFrame(const config::DataSection& data) {
  if (data.vqgan.empty()) return data.codes_per_frame;
  return checkpoint::OpenVqgan(data.vqgan)->config().CodesPerFrame(data.frame_size);
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

// Texts are learned to end with `eos`. Other ids that ended a text of the model that training began
// with still do, unless another tokenizer gives them another meaning.
void SetEos(int64_t eos, bool keeps_ids, config::ModelConfig& model) {
  std::vector<int64_t> others;
  if (keeps_ids || model.EndsText(eos)) {
    others = model.more_eos_token_ids;
    others.insert(others.begin(), model.eos_token_id);
    std::erase(others, eos);
    std::erase_if(others, [](int64_t id) { return id < 0; });
  }
  if (eos < 0 && !others.empty()) {
    eos = others.front();
    others.erase(others.begin());
  }
  model.eos_token_id = eos;
  model.more_eos_token_ids = std::move(others);
}

bool IsVisionTensor(const std::string& name) {
  return name == "model.vision_embed_tokens.weight" || name == "vision_head.weight";
}

// The checkpoint's, which a tokenizer that the recipe names must agree with.
std::shared_ptr<const data::Tokenizer> ResumedTokenizer(const config::TrainConfig& config,
                                                        const fs::path& checkpoint) {
  std::shared_ptr<const data::Tokenizer> tokenizer = data::OpenTokenizer(checkpoint);
  if (config.data.tokenizer.empty()) return tokenizer;
  const std::string difference =
      data::TokenizerDifference(*data::OpenTokenizer(config.data.tokenizer), *tokenizer);
  LWM_REQUIRE(difference.empty(), "data.tokenizer: ", config.data.tokenizer,
              " is not the tokenizer that the run in ", config.train.run_folder,
              " was begun with (", difference,
              "): name that one, or begin a new run in another train.run_folder");
  return tokenizer;
}

// model.init's own tokenizer, or nullptr if it has none that can be read.
std::unique_ptr<data::Tokenizer> OwnTokenizer(const std::string& init) {
  if (init.empty()) return nullptr;
  try {
    return data::OpenTokenizer(init);
  } catch (const Error&) {
    return nullptr;
  }
}

// The one that the recipe names, which model.init's own must agree with, or model.init's.
std::shared_ptr<const data::Tokenizer> GivenTokenizer(const config::TrainConfig& config) {
  if (config.data.tokenizer.empty()) return data::OpenTokenizer(config.model.init);
  std::shared_ptr<const data::Tokenizer> given = data::OpenTokenizer(config.data.tokenizer);
  const auto own = OwnTokenizer(config.model.init);
  if (!own || config.model.replace_tokenizer) return given;
  const std::string difference = data::TokenizerDifference(*given, *own);
  LWM_REQUIRE(difference.empty(), "data.tokenizer: ", config.data.tokenizer,
              " is not the tokenizer of model.init, ", config.model.init, " (", difference,
              "), whose weights know no other: leave data.tokenizer out to use the model's own, or "
              "set model.replace_tokenizer = true");
  return given;
}

}  // namespace

std::shared_ptr<const data::Tokenizer> PrepareTokenizer(const config::TrainConfig& config,
                                                        const std::optional<fs::path>& checkpoint,
                                                        dist::Communicator& world) {
  if (checkpoint) return ResumedTokenizer(config, *checkpoint);
  if (config.data.train_tokenizer_vocab == 0) return GivenTokenizer(config);
  const fs::path file = fs::path(config.train.run_folder) / "tokenizer.model";
  if (world.rank() == 0) TrainRunTokenizer(config, file);
  world.Barrier();
  return data::OpenTokenizer(file);
}

config::ModelConfig PrepareModel(const config::TrainConfig& config,
                                 const std::optional<fs::path>& checkpoint,
                                 const data::Tokenizer& tokenizer) {
  std::unique_ptr<checkpoint::ModelSource> source;
  if (!config.model.init.empty())
    source = checkpoint::OpenModel(checkpoint.value_or(config.model.init));
  config::ModelConfig resolved = config::ResolveModelConfig(
      config, source ? &source->config() : nullptr, tokenizer.vocab_size());
  // A tokenizer.json does not name them itself: a resumed run reads them from the checkpoint.
  resolved.bos_token_id = tokenizer.bos_id();
  const bool keeps_ids = !config.model.init.empty() && config.data.tokenizer.empty();
  SetEos(tokenizer.eos_id(), keeps_ids, resolved);
  if (const int64_t codes = resolved.has_vision() ? CodesPerFrame(config.data) : 0; codes > 0)
    resolved.codes_per_frame = codes;  // the size of the frames that it will draw
  RequireVisionFits(config, resolved);
  return resolved;
}

std::map<std::string, std::string> FilesBesideModel(const config::TrainConfig& config,
                                                    const std::optional<fs::path>& checkpoint,
                                                    const data::Tokenizer& tokenizer,
                                                    const config::ModelConfig& model) {
  std::map<std::string, std::string> files = data::TokenizerFiles(tokenizer);
  const fs::path from = checkpoint.value_or(config.model.init);
  const fs::path generation =
      (fs::is_directory(from) ? from : from.parent_path()) / "generation_config.json";
  if (!from.empty() && fs::exists(generation))
    files["generation_config.json"] = config::WithEosOf(model, ReadFile(generation));
  return files;
}

std::unique_ptr<data::RowLoader> OpenRows(const config::TrainConfig& config,
                                          std::shared_ptr<const data::Tokenizer> tokenizer,
                                          dist::Communicator& world,
                                          const std::function<void(const std::string&)>& log) {
  data::LoaderConfig loader = MakeLoaderConfig(config);
  loader.warn = world.rank() == 0;
  loader.media = OpenMedia(config);
  std::unique_ptr<data::RowLoader> rows;
  // Rank 0 first: it fills the cache of token files that the others then find.
  if (world.rank() == 0) rows = std::make_unique<data::RowLoader>(loader, tokenizer);
  world.Barrier();
  if (world.rank() != 0) rows = std::make_unique<data::RowLoader>(loader, tokenizer);
  if (loader.media && config.data.encode_ahead) EncodeAhead(*rows, *loader.media, world, log);
  // Media that are encoded as they come would be encoded by one rank alone.
  if (world.rank() == 0 && (!loader.media || config.data.encode_ahead))
    for (const std::string& line : rows->Survey()) log("warning: " + line);
  return rows;
}

void InitWeights(const config::TrainConfig& config, ShardedWeights& weights) {
  const bool from_file = !config.model.init.empty();
  if (!from_file || weights.config().has_vision())
    weights.InitRandom(MakeInitOptions(config, weights.config()));
  if (!from_file) return;
  const auto source = checkpoint::OpenModel(config.model.init);
  // A text model that gains vision: its own tensors from the file, the new ones random.
  const bool has_vision = source->config().has_vision();
  weights.Load([&](const model::TensorSpec& spec) {
    return IsVisionTensor(spec.name) && !has_vision ? at::Tensor() : source->Read(spec);
  });
}

}  // namespace lwm::train
