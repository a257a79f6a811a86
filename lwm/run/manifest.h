#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "lwm/base/json.h"

namespace lwm::run {

// {"format": 1, "files": {NAME: {"bytes": N, "xxh3": HEX}}, "xxh3": HEX of the files object's text}
inline constexpr char kManifestName[] = "MANIFEST.json";

// The entry of one file. Throws Error(kNotFound) if it cannot be read.
Json ManifestEntry(const std::filesystem::path& file);

// The manifest's text for {NAME: entry}.
std::string ManifestText(const Json& files);

// The "files" object of a folder's manifest. Throws Error(kNotFound) or Error(kCorruptData).
Json ReadManifest(const std::filesystem::path& folder);

// Checks every `stride`th of the listed files, starting with number `first`. Returns one line that
// names the first difference; nothing if they are as listed.
std::optional<std::string> FindDamagedFile(const std::filesystem::path& folder, const Json& files,
                                           int first, int stride);

// The part of that which needs no reading: a listed file that is missing or has another size.
std::optional<std::string> FindWrongSize(const std::filesystem::path& folder, const Json& files);

}  // namespace lwm::run
