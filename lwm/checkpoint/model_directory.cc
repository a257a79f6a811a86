#include "lwm/checkpoint/model_directory.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/process.h"
#include "lwm/checkpoint/finite.h"
#include "lwm/checkpoint/import.h"
#include "lwm/checkpoint/stored_form.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/io/safetensors.h"
#include "lwm/io/safetensors_source.h"

namespace lwm::checkpoint {
namespace {
namespace fs = std::filesystem;

struct Shard {
  std::string file_name;
  std::vector<model::TensorSpec> specs;
};

io::GgufType TypeOf(const model::TensorSpec& spec, const SaveOptions& options) {
  return options.blocks ? StoredType(spec, *options.blocks) : GgufTypeOf(options.dtype);
}

// A weight's entry in the header. Quantised weights are entered as rows of bytes.
io::TensorInfo InfoOf(const model::TensorSpec& spec, const SaveOptions& options) {
  const auto type = *io::FindGgufType(static_cast<uint32_t>(TypeOf(spec, options)));
  io::TensorInfo info = {spec.name, type.dtype, spec.shape};
  if (type.block > 1) {
    info.dtype = io::DType::kU8;
    info.shape.back() =
        info.shape.back() / static_cast<int64_t>(type.block) * static_cast<int64_t>(type.bytes);
  }
  return info;
}

int64_t WeightBytes(const model::TensorSpec& spec, const SaveOptions& options) {
  return static_cast<int64_t>(io::TensorBytes(InfoOf(spec, options)));
}

// Fills shards in file order; a weight larger than a shard gets one of its own.
std::vector<Shard> PlanShards(const config::ModelConfig& config, const SaveOptions& options) {
  std::vector<Shard> shards(1);
  int64_t bytes = 0;
  for (model::TensorSpec& spec : AllTensorSpecs(config)) {
    const int64_t more = WeightBytes(spec, options);
    if (bytes + more > options.max_shard_bytes && !shards.back().specs.empty()) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += more;
    shards.back().specs.push_back(std::move(spec));
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    char name[64] = "model.safetensors";
    if (shards.size() > 1)
      std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    shards[i].file_name = name;
  }
  return shards;
}

void WriteShard(const Shard& shard, const fs::path& folder, const SaveOptions& options,
                const std::function<at::Tensor(const model::TensorSpec&)>& read) {
  std::vector<model::TensorSpec> specs = shard.specs;
  const auto width = [&](const model::TensorSpec& spec) {
    return io::DTypeSize(InfoOf(spec, options).dtype);
  };
  // Widest elements first keeps every tensor aligned in the file.
  std::stable_sort(
      specs.begin(), specs.end(),
      [&](const model::TensorSpec& a, const model::TensorSpec& b) { return width(a) > width(b); });
  std::vector<io::TensorInfo> infos;
  for (const model::TensorSpec& spec : specs) infos.push_back(InfoOf(spec, options));
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (options.blocks)
    metadata[io::kSafetensorsBlocks] =
        io::FindGgufType(static_cast<uint32_t>(*options.blocks))->name;
  io::SafetensorsWriter writer(folder / shard.file_name, std::move(infos), metadata);
  for (const model::TensorSpec& spec : specs)
    WriteStoredForm(read(spec), TypeOf(spec, options), spec.name,
                    [&](auto bytes) { writer.Write(spec.name, bytes); });
  writer.Finish();
}

void WriteIndex(const std::vector<Shard>& shards, const fs::path& folder,
                const SaveOptions& options) {
  Json map = Json::object();
  int64_t total = 0;
  for (const Shard& shard : shards) {
    for (const model::TensorSpec& spec : shard.specs) {
      map[spec.name] = shard.file_name;
      total += WeightBytes(spec, options);
    }
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  WriteFileAtomically(folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

Json ConfigJson(const config::ModelConfig& config, const SaveOptions& options) {
  Json json =
      config::ModelConfigToJson(config, DtypeName(options.blocks ? at::kFloat : options.dtype));
  // Programs that know no such method refuse the folder instead of reading bytes as weights.
  if (options.blocks)
    json["quantization_config"] = {
        {"quant_method", "lwm_blocks"},
        {"blocks", io::FindGgufType(static_cast<uint32_t>(*options.blocks))->name}};
  return json;
}

}  // namespace

std::vector<model::TensorSpec> AllTensorSpecs(const config::ModelConfig& config) {
  std::vector<model::TensorSpec> specs = model::NonLayerTensorSpecs(config);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    for (model::TensorSpec& spec : model::LayerTensorSpecs(config, layer))
      specs.push_back(std::move(spec));
  return specs;
}

std::string DtypeName(at::ScalarType dtype) { return std::string(io::NumpyName(ToDType(dtype))); }

void RequireFits(const std::string& name, const at::Tensor& weight) {
  LWM_REQUIRE(weight.scalar_type() != at::kHalf || AllFinite(weight), "weight ", name,
              " is too large for f16; convert to bf16 or f32");
}

void RequireNewFolder(const fs::path& folder) {
  LWM_REQUIRE(!fs::exists(folder) || (fs::is_directory(folder) && fs::is_empty(folder)),
              folder.string(), " exists already; name a new folder or remove it");
}

model::ResidentWeights LoadModel(const fs::path& path, at::ScalarType dtype) {
  const auto source = OpenModel(path);
  RequireMemory(static_cast<double>(source->config().ParameterCount()) *
                    static_cast<double>(c10::elementSize(dtype)),
                Cat(path.string(), ": the weights in ", DtypeName(dtype)));
  model::ResidentWeights weights(source->config(), dtype);
  weights.Load([&](const model::TensorSpec& spec) { return source->Read(spec); });
  return weights;
}

void SaveModelDirectory(const config::ModelConfig& config,
                        const std::function<at::Tensor(const model::TensorSpec&)>& read,
                        const fs::path& folder, const SaveOptions& options) {
  RequireNewFolder(folder);
  const std::vector<Shard> shards = PlanShards(config, options);
  WriteFolderAtomically(folder, [&](const fs::path& temporary) {
    for (const Shard& shard : shards) WriteShard(shard, temporary, options, read);
    if (shards.size() > 1) WriteIndex(shards, temporary, options);
    WriteFileAtomically(temporary / "config.json", ConfigJson(config, options).dump(2) + "\n");
    if (options.also) options.also(temporary);
  });
}

}  // namespace lwm::checkpoint
