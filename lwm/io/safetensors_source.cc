#include "lwm/io/safetensors_source.h"

#include <optional>

#include "lwm/base/error.h"
#include "lwm/io/safetensors.h"

namespace lwm::io {
namespace {

std::optional<GgufTypeInfo> BlocksOf(const SafetensorsLayout& layout, const std::string& where) {
  const auto found = layout.metadata.find(kSafetensorsBlocks);
  if (found == layout.metadata.end()) return {};
  const auto type = FindGgufType(found->second);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, type && type->block > 1, where, ": ", kSafetensorsBlocks,
                 " is \"", found->second.substr(0, 40), "\", no GGUF type of quantised blocks");
  return type;
}

void ReadAsBlocks(const GgufTypeInfo& blocks, const std::string& where, StoredTensor& tensor) {
  std::vector<int64_t>& shape = tensor.data.shape;
  const auto bytes = static_cast<int64_t>(blocks.bytes);
  const bool whole = !shape.empty() && shape.back() % bytes == 0 && shape.back() < INT64_MAX / 16;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, whole, where, ": tensor ", tensor.name, " ",
                 ShapeText(shape), " holds no whole ", blocks.name, " blocks");
  shape.back() = shape.back() / bytes * static_cast<int64_t>(blocks.block);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, io::TensorBytes(DType::kF32, shape).has_value(), where,
                 ": tensor ", tensor.name, " has an impossible shape");
  tensor.data.dtype = DType::kF32;
  tensor.data.strides = ContiguousStrides(shape);
  tensor.blocks = blocks;
}

}  // namespace

std::vector<StoredTensor> ParseSafetensorsTensors(std::span<const std::byte> file,
                                                  const std::string& where) {
  SafetensorsLayout layout = ParseSafetensors(file, where);
  const auto blocks = BlocksOf(layout, where);
  std::vector<StoredTensor> tensors;
  for (size_t i = 0; i < layout.infos.size(); ++i) {
    TensorInfo& info = layout.infos[i];
    const auto bytes = file.subspan(layout.offsets[i], TensorBytes(info));
    const bool in_blocks = blocks && info.dtype == DType::kU8;
    tensors.push_back(ContiguousTensor(std::move(info), bytes));
    if (in_blocks) ReadAsBlocks(*blocks, where, tensors.back());
  }
  return tensors;
}

SafetensorsSource::SafetensorsSource(const std::filesystem::path& path) : MappedSource(path) {
  Open(path, ParseSafetensorsTensors);
}

}  // namespace lwm::io
