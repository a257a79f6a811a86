#include "lwm/io/mapped_source.h"

#include "lwm/base/error.h"
#include "lwm/io/shard_index.h"

namespace lwm::io {

StoredTensor ContiguousTensor(TensorInfo info, std::span<const std::byte> bytes) {
  StoredTensor tensor;
  tensor.name = std::move(info.name);
  tensor.data.dtype = info.dtype;
  tensor.data.strides = ContiguousStrides(info.shape);
  tensor.data.shape = std::move(info.shape);
  tensor.data.storage = bytes;
  return tensor;
}

void MappedSource::OpenFiles(const std::vector<std::filesystem::path>& files, const Parse& parse) {
  std::vector<TensorInfo> infos;
  for (size_t file = 0; file < files.size(); ++file) {
    files_.push_back(std::make_unique<MappedFile>(files[file]));
    for (StoredTensor& tensor : parse(files_[file]->bytes(), files[file].string())) {
      infos.push_back({tensor.name, tensor.data.dtype, tensor.data.shape});
      entries_.push_back({std::move(tensor), file});
    }
  }
  SetInfos(std::move(infos));
}

void MappedSource::Open(const std::filesystem::path& path, const Parse& parse) {
  if (path.extension() != ".json") return OpenFiles({path}, parse);
  const ShardIndex index = ReadShardIndex(path);
  OpenFiles(index.files, parse);
  for (const auto& [name, file] : index.tensors)
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, contains(name) && entries_[IndexOf(name)].file == file,
                   index.files[file].string(), ": tensor ", name,
                   " is missing, though the index names this shard for it");
}

std::string_view MappedSource::Encoding(size_t index) const {
  const auto& blocks = entries_[index].tensor.blocks;
  return blocks ? blocks->name : TensorSource::Encoding(index);
}

uint64_t MappedSource::StoredBytes(size_t index) const {
  const StoredTensor& tensor = entries_[index].tensor;
  return tensor.blocks ? tensor.data.storage.size() : TensorSource::StoredBytes(index);
}

void MappedSource::ReadRange(size_t index, uint64_t offset,
                             std::span<std::byte> destination) const {
  CheckRange(index, offset, destination.size());
  if (destination.empty()) return;
  const Entry& entry = entries_[index];
  const StridedTensor& data = entry.tensor.data;
  if (!entry.tensor.blocks) {
    ReadStrided(data, offset, destination);
    const bool contiguous = data.strides == ContiguousStrides(data.shape);
    const uint64_t begin = static_cast<uint64_t>(data.offset) * DTypeSize(data.dtype) + offset;
    return ForgetBytes(entry,
                       contiguous ? data.storage.subspan(begin, destination.size()) : data.storage);
  }
  const GgufTypeInfo& type = *entry.tensor.blocks;
  const uint64_t first = offset / sizeof(float), count = destination.size() / sizeof(float);
  LWM_CHECK(first % type.block == 0 && count % type.block == 0, "range of parts of blocks");
  const auto bytes =
      data.storage.subspan(first / type.block * type.bytes, count / type.block * type.bytes);
  Dequantize(type.type, bytes, {reinterpret_cast<float*>(destination.data()), count});
  ForgetBytes(entry, bytes);
}

std::span<const std::byte> MappedSource::View(size_t index) const {
  const StoredTensor& tensor = entries_[index].tensor;
  const StridedTensor& data = tensor.data;
  const uint64_t bytes = TensorBytes(infos()[index]);
  if (tensor.blocks || bytes == 0 || data.strides != ContiguousStrides(data.shape)) return {};
  const uint64_t begin = static_cast<uint64_t>(data.offset) * DTypeSize(data.dtype);
  return Aligned(index, data.storage.subspan(begin, bytes));
}

void MappedSource::Forget(size_t index) const {
  ForgetBytes(entries_[index], entries_[index].tensor.data.storage);
}

void MappedSource::ForgetBytes(const Entry& entry, std::span<const std::byte> bytes) const {
  const auto file = files_[entry.file]->bytes();
  const bool inside = bytes.data() >= file.data() && bytes.data() < file.data() + file.size();
  // The caller has a copy: pages of the file would only add to the process's resident memory.
  if (inside)  // not bytes that the source decoded into its own memory
    files_[entry.file]->Forget(static_cast<size_t>(bytes.data() - file.data()), bytes.size());
}

}  // namespace lwm::io
