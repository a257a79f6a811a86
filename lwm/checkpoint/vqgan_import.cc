#include "lwm/checkpoint/vqgan_import.h"

#include <ATen/ATen.h>

#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/checkpoint/vqgan_names.h"
#include "lwm/io/checkpoint_place.h"
#include "lwm/io/numpy_pickle_writer.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/io/safetensors.h"
#include "lwm/io/unwrapped_source.h"

namespace lwm::checkpoint {
namespace {
namespace fs = std::filesystem;

constexpr char kWeightFile[] = "diffusion_pytorch_model.safetensors";
constexpr char kPickleFile[] = "vqgan";
constexpr char kCodebook[] = "quantize.embedding.weight";

constexpr std::pair<io::DType, at::ScalarType> kFloats[] = {{io::DType::kF64, at::kDouble},
                                                            {io::DType::kF32, at::kFloat},
                                                            {io::DType::kF16, at::kHalf},
                                                            {io::DType::kBF16, at::kBFloat16}};

io::DType StoredType(at::ScalarType dtype) {
  for (const auto& [stored, scalar] : kFloats)
    if (scalar == dtype) return stored;
  throw Error(ErrorCode::kInvalidArgument, Cat("VQGAN weights cannot be written as ", dtype));
}

std::span<std::byte> Bytes(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

// The shape of a weight in the pickle: convolutions HWIO, the rest as in diffusers.
std::vector<int64_t> FlaxShape(const std::vector<int64_t>& shape) {
  if (shape.size() != 4) return shape;
  return {shape[2], shape[3], shape[1], shape[0]};
}

// The folder or file of the VQGAN that `path` names.
fs::path FindVqgan(const fs::path& named) {
  const fs::path path = io::FindCheckpoint(named);
  const bool is_model_directory = fs::is_directory(path / kPickleFile);
  return is_model_directory ? path / kPickleFile : path;
}

config::VqganConfig FindConfig(const fs::path& path, const std::optional<fs::path>& config_json) {
  if (config_json) return config::ReadVqganConfig(*config_json);
  const fs::path beside = (fs::is_directory(path) ? path : path.parent_path()) / "config.json";
  LWM_REQUIRE(fs::exists(beside), path.string(),
              " is a VQGAN, but no config.json stands beside it; give the config of a diffusers "
              "VQModel with --config");
  return config::ReadVqganConfig(beside);
}

bool IsLanguageModel(const io::TensorSource& source) {
  for (const char* name : {"model.embed_tokens.weight", "token_embd.weight",
                           "transformer/wte/embedding", "token_embedding_table"})
    if (source.contains(name)) return true;
  return false;
}

void RequireVqgan(const io::TensorSource& source) {
  LWM_REQUIRE_AS(ErrorCode::kNotFound, IsVqgan(source) || !IsLanguageModel(source), source.where(),
                 ": a language model without a VQGAN (no folder vqgan beside its weights); give "
                 "the directory of a VQGAN");
  LWM_REQUIRE_AS(ErrorCode::kNotFound, IsVqgan(source), source.where(),
                 " holds no VQGAN: there is no tensor ", kCodebook, " or ", FlaxName(kCodebook));
}

// The weight in `dtype`; refuses one that became infinite.
at::Tensor Converted(const VqganSource& source, const vision::VqganSpec& spec,
                     at::ScalarType dtype) {
  const at::Tensor weight = source.Read(spec).to(dtype);
  LWM_REQUIRE(dtype != at::kHalf || at::isfinite(weight).all().item<bool>(),
              source.source().where(), ": weight ", spec.name, " does not fit f16; write f32");
  return weight;
}

void WriteConfig(const config::VqganConfig& config, const fs::path& folder) {
  WriteFileAtomically(folder / "config.json", config::VqganConfigToJson(config).dump(2) + "\n");
}

std::vector<io::TensorInfo> InfosOf(const config::VqganConfig& config, at::ScalarType dtype) {
  std::vector<io::TensorInfo> infos;
  for (const vision::VqganSpec& spec : vision::VqganSpecs(config))
    infos.push_back({spec.name, StoredType(dtype), spec.shape});
  return infos;
}

}  // namespace

bool IsVqgan(const io::TensorSource& source) {
  return source.contains(kCodebook) || source.contains(FlaxName(kCodebook));
}

VqganSource::VqganSource(config::VqganConfig config, std::unique_ptr<io::TensorSource> source)
    : config_(std::move(config)),
      source_(std::move(source)),
      is_flax_(source_->contains(FlaxName(kCodebook))) {
  config_.Validate();
  RequireVqgan(*source_);
  std::set<std::string> known;
  for (const vision::VqganSpec& spec : vision::VqganSpecs(config_)) {
    const std::string name = is_flax_ ? FlaxName(spec.name) : spec.name;
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, source_->contains(name), source_->where(), ": weight ",
                   name, " is missing; the config asks for it");
    known.insert(name);
  }
  // Weights without a place mean another architecture: refused, since codes would be wrong without
  // an error.
  for (const io::TensorInfo& info : source_->infos())
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, known.contains(info.name), source_->where(),
                   ": weight ", info.name, " has no place in the model of the config");
}

at::Tensor VqganSource::Read(const vision::VqganSpec& spec) const {
  const std::string name = is_flax_ ? FlaxName(spec.name) : spec.name;
  const io::TensorInfo& info = source_->info(name);
  const auto wanted = is_flax_ ? FlaxShape(spec.shape) : spec.shape;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, info.shape == wanted, source_->where(), ": weight ", name,
                 " is ", io::ShapeText(info.shape), ", the config wants ", io::ShapeText(wanted));
  at::Tensor weight;
  for (const auto& [stored, scalar] : kFloats)
    if (stored == info.dtype) weight = at::empty(info.shape, scalar);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, weight.defined(), source_->where(), ": weight ", name,
                 " is not of a float type");
  source_->Read(name, Bytes(weight));
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, at::isfinite(weight).all().item<bool>(), source_->where(),
                 ": weight ", name, " holds NaN or infinity");
  const bool is_kernel = is_flax_ && weight.dim() == 4;
  return is_kernel ? weight.permute({3, 2, 0, 1}).contiguous() : weight;
}

std::unique_ptr<VqganSource> OpenVqgan(const fs::path& path,
                                       const std::optional<fs::path>& config_json) {
  const fs::path place = FindVqgan(path);
  auto source = io::Unwrapped(io::OpenTensorSource(place));
  RequireVqgan(*source);
  return std::make_unique<VqganSource>(FindConfig(place, config_json), std::move(source));
}

vision::Vqgan LoadVqgan(const fs::path& path, at::ScalarType dtype,
                        const std::optional<fs::path>& config_json) {
  const auto source = OpenVqgan(path, config_json);
  vision::VqganWeights weights;
  // The codebook stays in f32: distances are computed there.
  vision::ForEachWeight(
      source->config(), weights, [&](const vision::VqganSpec& spec, at::Tensor& weight) {
        weight = source->Read(spec).to(spec.name == kCodebook ? at::kFloat : dtype);
      });
  return vision::Vqgan(source->config(), std::move(weights), dtype);
}

void SaveVqganDiffusers(const VqganSource& source, const fs::path& folder, at::ScalarType dtype) {
  const std::vector<vision::VqganSpec> specs = vision::VqganSpecs(source.config());
  WriteFolderAtomically(folder, [&](const fs::path& part) {
    io::SafetensorsWriter writer(part / kWeightFile, InfosOf(source.config(), dtype));
    for (const vision::VqganSpec& spec : specs)
      writer.Write(spec.name, Bytes(Converted(source, spec, dtype)));
    writer.Finish();
    WriteConfig(source.config(), part);
  });
}

void SaveVqgan(const config::VqganConfig& config, const vision::VqganWeights& weights,
               const fs::path& folder) {
  io::SafetensorsWriter writer(folder / kWeightFile, InfosOf(config, at::kFloat));
  vision::VqganWeights copy = weights;
  vision::ForEachWeight(config, copy, [&](const vision::VqganSpec& spec, at::Tensor& weight) {
    const at::Tensor stored = weight.detach().to(at::kFloat).contiguous();
    LWM_CHECK(stored.sizes() == at::IntArrayRef(spec.shape), spec.name);
    writer.Write(spec.name, Bytes(stored));
  });
  writer.Finish();
  WriteConfig(config, folder);
}

void SaveVqganPickle(const VqganSource& source, const fs::path& folder, at::ScalarType dtype) {
  LWM_REQUIRE(dtype != at::kBFloat16,
              "numpy arrays cannot be bf16; write the pickle with --dtype f32 or f16");
  std::map<std::string, vision::VqganSpec> spec_of;
  std::vector<io::TensorInfo> infos;
  for (const vision::VqganSpec& spec : vision::VqganSpecs(source.config())) {
    spec_of[FlaxName(spec.name)] = spec;
    infos.push_back({FlaxName(spec.name), StoredType(dtype), FlaxShape(spec.shape)});
  }
  WriteFolderAtomically(folder, [&](const fs::path& part) {
    io::WriteNumpyPickle(part / kPickleFile, infos, [&](const io::TensorInfo& info) {
      at::Tensor weight = Converted(source, spec_of.at(info.name), dtype);
      if (weight.dim() == 4) weight = weight.permute({2, 3, 1, 0}).contiguous();
      const auto bytes = Bytes(weight);
      return std::vector<std::byte>(bytes.begin(), bytes.end());
    });
    WriteConfig(source.config(), part);
  });
}

}  // namespace lwm::checkpoint
