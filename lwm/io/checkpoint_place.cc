#include "lwm/io/checkpoint_place.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/gguf_split.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

std::vector<fs::path> SortedEntries(const fs::path& folder) {
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder)) entries.push_back(entry.path());
  std::sort(entries.begin(), entries.end());
  return entries;
}

// The snapshot that refs/main names; "" when there is no such file.
std::string MainRevision(const fs::path& cache) {
  const fs::path file = cache / "refs" / "main";
  if (!fs::is_regular_file(file)) return "";
  std::string revision = ReadFile(file);
  while (!revision.empty() && std::isspace(static_cast<unsigned char>(revision.back())))
    revision.pop_back();
  // From a file: it must not lead out of the folder of snapshots.
  const bool plain = !revision.empty() && fs::path(revision) == fs::path(revision).filename();
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, plain && !revision.starts_with('.'), file.string(),
                 ": does not name a snapshot");
  return revision;
}

fs::path SnapshotIn(const fs::path& cache) {
  const fs::path snapshots = cache / "snapshots";
  if (const std::string revision = MainRevision(cache); !revision.empty()) {
    LWM_REQUIRE_AS(ErrorCode::kNotFound, fs::is_directory(snapshots / revision), cache.string(),
                   ": a cache folder whose refs/main names the snapshot ", revision,
                   ", which is not in snapshots; the download is incomplete");
    return snapshots / revision;
  }
  std::vector<fs::path> inside;
  for (fs::path& entry : SortedEntries(snapshots))
    if (fs::is_directory(entry)) inside.push_back(std::move(entry));
  LWM_REQUIRE_AS(ErrorCode::kNotFound, !inside.empty(), snapshots.string(),
                 " holds no snapshot of the model; the download is incomplete");
  LWM_REQUIRE_AS(ErrorCode::kNotFound, inside.size() == 1, snapshots.string(),
                 " holds several snapshots (", NameSome(inside),
                 ") and no refs/main chooses one; name the one to read");
  return inside[0];
}

// The cache folder that `folder` is, or whose `snapshots` it is.
std::optional<fs::path> CacheOf(const fs::path& folder) {
  if (fs::is_directory(folder / "snapshots") && !fs::exists(folder / "config.json")) return folder;
  const fs::path absolute = (fs::absolute(folder) / "").lexically_normal().parent_path();
  const bool is_inside = absolute.filename() == "snapshots" &&
                         absolute.parent_path().filename().string().starts_with("models--");
  return is_inside ? std::optional(absolute.parent_path()) : std::nullopt;
}

// A run folder has its newest checkpoint as `model` and all of them in `checkpoints`.
std::optional<fs::path> ModelOfRun(const fs::path& folder) {
  if (fs::exists(folder / "config.json")) return {};
  if (fs::exists(folder / "model" / "config.json")) return folder / "model";
  if (!fs::is_directory(folder / "checkpoints")) return {};
  const std::vector<fs::path> steps = SortedEntries(folder / "checkpoints");
  throw Error(ErrorCode::kNotFound,
              Cat(folder.string(), ": a run folder without a model; ",
                  steps.empty() ? std::string("no checkpoint was written yet")
                                : "name one of its checkpoints: " + NameSome(steps)));
}

bool IsWeightFile(const fs::path& path) {
  static const std::set<std::string> kExtensions = {".safetensors", ".bin", ".msgpack", ".pt",
                                                    ".pth"};
  return kExtensions.contains(path.extension().string());
}

// The GGUF file, or the first part, when the folder holds no other weights.
std::optional<fs::path> GgufIn(const fs::path& folder) {
  std::vector<fs::path> models;
  for (const fs::path& entry : SortedEntries(folder)) {
    if (IsWeightFile(entry)) return {};
    if (entry.extension() != ".gguf" || !fs::is_regular_file(entry)) continue;
    fs::path first = FirstGgufPart(entry);
    if (std::find(models.begin(), models.end(), first) == models.end())
      models.push_back(std::move(first));
  }
  if (models.empty()) return {};
  LWM_REQUIRE_AS(ErrorCode::kNotFound, models.size() == 1, folder.string(),
                 " holds several GGUF models (", NameSome(models), "); name the one to read");
  return models[0];
}

}  // namespace

std::string NameSome(const std::vector<fs::path>& files) {
  constexpr size_t kMost = 6;
  std::string text;
  for (size_t i = 0; i < std::min(kMost, files.size()); ++i)
    text += (i == 0 ? "" : ", ") + files[i].filename().string();
  return files.size() > kMost ? Cat(text, " and ", files.size() - kMost, " more") : text;
}

fs::path FindCheckpoint(const fs::path& path) {
  if (!fs::is_directory(path)) return FirstGgufPart(path);
  if (const auto cache = CacheOf(path)) return FindCheckpoint(SnapshotIn(*cache));
  if (const auto model = ModelOfRun(path)) return *model;
  return GgufIn(path).value_or(path);
}

}  // namespace lwm::io
