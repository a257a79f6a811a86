#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "lwm/config/train_config.h"
#include "lwm/data/loader.h"
#include "lwm/data/tokenizer.h"
#include "lwm/dist/communicator.h"
#include "lwm/train/sharded_weights.h"

namespace lwm::train {

// The phases between a recipe and the first step. All are collective over `world`; files that
// one rank writes exist for all when they return.

// The recipe's tokenizer: the given one, model.init's, or one trained on the training files (rank
// 0, all of its threads) and kept in the run folder; a resumed run takes the checkpoint's. Throws
// Error(kInvalidArgument) when the given one is another than the checkpoint's, or than model.init's
// without model.replace_tokenizer.
std::shared_ptr<const data::Tokenizer> PrepareTokenizer(
    const config::TrainConfig& config, const std::optional<std::filesystem::path>& checkpoint,
    dist::Communicator& world);

// The recipe's model, checked against the tokenizer; see config::ResolveModelConfig. Its BOS and
// EOS are the tokenizer's, which the data is made with.
config::ModelConfig PrepareModel(const config::TrainConfig& config,
                                 const std::optional<std::filesystem::path>& checkpoint,
                                 const data::Tokenizer& tokenizer);

// The files of the run's model directories other than config and weights, name -> content: the
// tokenizer's, and generation_config.json of the model that training began with.
std::map<std::string, std::string> FilesBesideModel(
    const config::TrainConfig& config, const std::optional<std::filesystem::path>& checkpoint,
    const data::Tokenizer& tokenizer, const config::ModelConfig& model);

// The stream of rows that all ranks read; a cache of token files is written by rank 0 alone. Media
// are encoded first, divided over the ranks; `log` gets progress on every rank, and on rank 0 what
// RowLoader::Survey finds.
std::unique_ptr<data::RowLoader> OpenRows(const config::TrainConfig& config,
                                          std::shared_ptr<const data::Tokenizer> tokenizer,
                                          dist::Communicator& world,
                                          const std::function<void(const std::string&)>& log);

// Random weights by the recipe, or model.init's; tensors that model.init lacks because it knows no
// vision stay random. Throws as checkpoint::OpenModel and ModelSource::Read do.
void InitWeights(const config::TrainConfig& config, ShardedWeights& weights);

}  // namespace lwm::train
