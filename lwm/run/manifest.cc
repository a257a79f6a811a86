#include "lwm/run/manifest.h"

#include "lwm/base/error.h"
#include "lwm/base/file.h"

namespace lwm::run {
namespace fs = std::filesystem;
namespace {

constexpr int kFormat = 1;

// Of a JSON object's dump, which is canonical: keys are sorted, no spaces.
std::string HashOfText(const std::string& text) { return HashHex(std::as_bytes(std::span(text))); }

}  // namespace

Json ManifestEntry(const fs::path& file) {
  const MappedFile mapped(file);
  return {{"bytes", mapped.bytes().size()}, {"xxh3", HashHex(mapped.bytes())}};
}

std::string ManifestText(const Json& files) {
  return Json{{"format", kFormat}, {"files", files}, {"xxh3", HashOfText(files.dump())}}.dump(1);
}

Json ReadManifest(const fs::path& folder) {
  const fs::path path = folder / kManifestName;
  const Json manifest = ReadJsonFile(path);
  const std::string where = path.string();
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, JsonGet<int>(manifest, "format", where) == kFormat, where,
                 ": format is not ", kFormat);
  const Json files = JsonGet<Json>(manifest, "files", where);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                 files.is_object() &&
                     HashOfText(files.dump()) == JsonGet<std::string>(manifest, "xxh3", where),
                 where, ": the list of files does not match its hash");
  return files;
}

namespace {

std::optional<std::string> WrongSize(const fs::path& folder, const std::string& name,
                                     const Json& listed) {
  std::error_code error;
  const auto bytes = fs::file_size(folder / name, error);
  if (error) return Cat(name, ": ", error.message());
  const auto wanted = JsonGet<uint64_t>(listed, "bytes", name);
  if (bytes != wanted) return Cat(name, " has ", bytes, " bytes, want ", wanted);
  return std::nullopt;
}

}  // namespace

std::optional<std::string> FindWrongSize(const fs::path& folder, const Json& files) {
  for (const auto& [name, listed] : files.items()) {
    if (auto problem = WrongSize(folder, name, listed)) return problem;
  }
  return std::nullopt;
}

std::optional<std::string> FindDamagedFile(const fs::path& folder, const Json& files, int first,
                                           int stride) {
  int number = 0;
  for (const auto& [name, listed] : files.items()) {
    if (number++ % stride != first) continue;
    if (auto problem = WrongSize(folder, name, listed)) return problem;
    if (ManifestEntry(folder / name) != listed) return Cat(name, " does not match its hash");
  }
  return std::nullopt;
}

}  // namespace lwm::run
