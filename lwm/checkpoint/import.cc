#include "lwm/checkpoint/import.h"

#include <ATen/ATen.h>

#include "lwm/base/error.h"
#include "lwm/checkpoint/finite.h"
#include "lwm/checkpoint/foreign_weights.h"
#include "lwm/checkpoint/import_config.h"
#include "lwm/checkpoint/rotary_pairs.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/config/generation_config.h"
#include "lwm/io/checkpoint_place.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/io/unwrapped_source.h"

namespace lwm::checkpoint {
namespace {
namespace fs = std::filesystem;

// Layer `layer` of a tensor stacked along its second axis, [in, layers, ...].
at::Tensor ReadSecondAxis(const io::TensorSource& source, const std::string& name, int64_t layer) {
  const size_t index = source.IndexOf(name);
  const io::TensorInfo& info = source.infos()[index];
  std::vector<int64_t> shape = info.shape;
  shape.erase(shape.begin() + 1);
  at::Tensor tensor = at::empty(shape, ToScalarType(info.dtype));
  const std::span<std::byte> bytes = TensorBytes(tensor);
  const auto rows = static_cast<uint64_t>(shape[0]), layers = static_cast<uint64_t>(info.shape[1]);
  const uint64_t row_bytes = bytes.size() / std::max<uint64_t>(rows, 1);
  for (uint64_t row = 0; row < rows; ++row)
    source.ReadRange(index, (row * layers + static_cast<uint64_t>(layer)) * row_bytes,
                     bytes.subspan(row * row_bytes, row_bytes));
  return tensor;
}

at::Tensor ReadStored(const std::shared_ptr<const io::TensorSource>& shared,
                      const WeightRule& rule) {
  if (rule.layer < 0) return ViewTensor(shared, rule.source_name);
  const io::TensorSource& source = *shared;
  const auto& shape = source.info(rule.source_name).shape;
  const auto axis = static_cast<size_t>(rule.layer_axis);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, shape.size() > axis && rule.layer < shape[axis],
                 source.where(), ": ", rule.source_name, " ", io::ShapeText(shape),
                 " has no layer ", rule.layer);
  // Along the first axis a layer is one range of bytes, along the second one range per input row.
  if (rule.layer_axis == 1) return ReadSecondAxis(source, rule.source_name, rule.layer);
  return ReadTensorRows(source, rule.source_name, rule.layer, 1).squeeze(0);
}

// A tied head is often stored all the same. One that is not the embedding was trained by itself:
// neither may be dropped without a word.
void RequireOneHead(const std::shared_ptr<const io::TensorSource>& source) {
  const std::string head = "lm_head.weight", embedding = "model.embed_tokens.weight";
  if (!source->contains(head) || !source->contains(embedding)) return;
  const at::Tensor head_VD = ViewTensor(source, head), table_VD = ViewTensor(source, embedding);
  const bool same =
      head_VD.sizes() == table_VD.sizes() && at::equal(head_VD, table_VD.to(head_VD.scalar_type()));
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, same, source->where(), ": tie_word_embeddings is true, ",
                 "but the file holds a ", head, " that differs from ", embedding,
                 "; set tie_word_embeddings to false in config.json to use the stored head, or ",
                 "remove ", head, " to use the embedding");
}

fs::path ConfigBeside(const fs::path& path) {
  return (fs::is_directory(path) ? path : path.parent_path()) / "config.json";
}

config::ModelConfig FindConfig(const fs::path& path, const std::optional<fs::path>& config_json,
                               const io::TensorSource& source) {
  const auto read = [](const fs::path& file) {
    config::ModelConfig config = config::ReadModelConfig(file);
    config::AddGenerationEos(file.parent_path(), config);
    return config;
  };
  if (config_json) return read(*config_json);
  // A config.json beside a GGUF or llama2.c file may belong to another model; these formats state
  // their sizes themselves.
  const bool states_itself = source.format() == "gguf" || source.format() == "llama2c";
  if (!states_itself && fs::exists(ConfigBeside(path))) return read(ConfigBeside(path));
  auto config = ConfigOfSource(source);
  LWM_REQUIRE(config.has_value(), path.string(), " (", source.format(),
              ") does not state heads, rope_theta and length; give them as a Hugging Face "
              "config.json with --config");
  return *config;
}

}  // namespace

ModelSource::ModelSource(const config::ModelConfig& config,
                         std::unique_ptr<io::TensorSource> source)
    : config_(config), source_(std::move(source)) {
  config_.Validate();
  rules_ = MakeWeightRules(config_, *source_);
  if (config_.tie_word_embeddings) RequireOneHead(source_);
}

at::Tensor ModelSource::Read(const model::TensorSpec& spec) const {
  const auto found = rules_.find(spec.name);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, found != rules_.end(), source_->where(), ": weight ",
                 spec.name, " is missing");
  const WeightRule& rule = found->second;
  const auto fail_unless = [&](bool condition, const std::string& problem) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, condition, source_->where(), ": weight ",
                   rule.source_name, " ", problem);
  };
  fail_unless(io::IsFloat(source_->info(rule.source_name).dtype), "is not of a float type");
  at::Tensor weight = ReadStored(source_, rule);
  if (rule.transpose && weight.dim() == 2) weight = weight.t().contiguous();
  fail_unless(weight.sizes() == at::IntArrayRef(spec.shape),
              Cat("gives ", spec.name, " the shape ", weight.sizes(), ", the config wants ",
                  at::IntArrayRef(spec.shape)));
  // Once here: a NaN found later could come from any layer.
  fail_unless(AllFinite(weight), "holds NaN or infinity");
  if (rule.interleaved_heads > 0) weight = HalvesFromPairs(weight, rule.interleaved_heads);
  return weight;
}

std::unique_ptr<ModelSource> OpenModel(const fs::path& named,
                                       const std::optional<fs::path>& config_json) {
  const fs::path path = io::FindCheckpoint(named);
  // Foreign kinds are refused first: their tensors would only give errors about missing or
  // misshapen weights.
  if (fs::exists(path)) RefuseForeignFolder(path);
  auto source = io::Unwrapped(io::OpenTensorSource(path));
  RefuseForeignTensors(*source);
  config::ModelConfig config = FindConfig(path, config_json, *source);
  return std::make_unique<ModelSource>(config, std::move(source));
}

}  // namespace lwm::checkpoint
