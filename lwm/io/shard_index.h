#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace lwm::io {

// The files of a sharded checkpoint, from its index ("weight_map": tensor name -> file name).
struct ShardIndex {
  std::vector<std::filesystem::path> files;             // each once, sorted by name
  std::vector<std::pair<std::string, size_t>> tensors;  // name, position in `files`
};

// Reads and checks `index_file`: file names are plain names in its folder, and every file exists.
// Throws Error(kCorruptData), or Error(kNotFound) naming the missing shards.
ShardIndex ReadShardIndex(const std::filesystem::path& index_file);

}  // namespace lwm::io
