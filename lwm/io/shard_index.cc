#include "lwm/io/shard_index.h"

#include <algorithm>
#include <map>

#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/io/checkpoint_place.h"

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
  std::vector<fs::path> missing;
  for (fs::path& file : index.files) {
    // An index from elsewhere must not name files outside its folder.
    const bool plain = file == file.filename() && file != ".." && file != ".";
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, plain, where, ": shard name \"", file.string(),
                   "\" is not a plain file name");
    file = index_file.parent_path() / file;
    if (!fs::is_regular_file(file)) missing.push_back(file);
  }
  LWM_REQUIRE_AS(ErrorCode::kNotFound, missing.empty(), where, ": ", missing.size(), " of ",
                 index.files.size(), " shards ", missing.size() == 1 ? "is" : "are",
                 " missing: ", NameSome(missing), "; the download is incomplete");
  return index;
}

}  // namespace lwm::io
