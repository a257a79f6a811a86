#include "lwm/io/safetensors_source.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "lwm/base/error.h"
#include "lwm/base/json.h"

namespace lwm::io {
namespace fs = std::filesystem;

ShardIndex ReadShardIndex(const fs::path& index_file) {
  const Json json = ReadJsonFile(index_file);
  const std::string where = index_file.string();
  const auto map = JsonGet<std::map<std::string, std::string>>(json, "weight_map", where);
  ShardIndex index;
  for (const auto& [name, file] : map) index.files.push_back(file);
  std::sort(index.files.begin(), index.files.end());
  index.files.erase(std::unique(index.files.begin(), index.files.end()), index.files.end());
  for (const auto& [name, file] : map) {
    const auto at = std::lower_bound(index.files.begin(), index.files.end(), fs::path(file));
    index.tensors.emplace_back(name, static_cast<size_t>(at - index.files.begin()));
  }
  for (fs::path& file : index.files) {
    const bool plain = file == file.filename() && file != ".." && file != ".";
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, plain, where, ": shard name \"", file.string(),
                   "\" is not a plain file name");
    file = index_file.parent_path() / file;
    LWM_REQUIRE_AS(ErrorCode::kNotFound, fs::is_regular_file(file), "shard ", file.string(),
                   " is missing; ", index_file.filename().string(), " names it");
  }
  return index;
}

SafetensorsSource::SafetensorsSource(const fs::path& path) : TensorSource(path) {
  std::vector<TensorInfo> infos;
  if (path.extension() != ".json") {
    files_.push_back(std::make_unique<SafetensorsFile>(path));
    infos = files_[0]->infos();
    file_of_.assign(infos.size(), files_[0].get());
  } else {
    const ShardIndex index = ReadShardIndex(path);
    for (const fs::path& file : index.files)
      files_.push_back(std::make_unique<SafetensorsFile>(file));
    for (const auto& [name, file] : index.tensors) {
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, files_[file]->contains(name),
                     index.files[file].string(), ": tensor ", name,
                     " is missing, though the index names this shard for it");
      infos.push_back(files_[file]->info(name));
      file_of_.push_back(files_[file].get());
    }
  }
  SetInfos(std::move(infos));
}

void SafetensorsSource::ReadRange(size_t index, uint64_t offset,
                                  std::span<std::byte> destination) const {
  CheckRange(index, offset, destination.size());
  if (destination.empty()) return;
  const auto bytes = file_of_[index]->bytes(infos()[index].name);
  std::memcpy(destination.data(), bytes.data() + offset, destination.size());
  Forget(index);
}

std::span<const std::byte> SafetensorsSource::View(size_t index) const {
  return Aligned(index, file_of_[index]->bytes(infos()[index].name));
}

void SafetensorsSource::Forget(size_t index) const { file_of_[index]->Forget(infos()[index].name); }

}  // namespace lwm::io
