#pragma once

#include <filesystem>
#include <vector>

#include "lwm/io/gguf_source.h"

namespace lwm::io {

// All files of the model that `file` is a part of, in order: "NAME-00001-of-00003.gguf" and so on
// in its folder, whichever part is named; `file` alone when its name is not of that form.
// Throws Error(kNotFound) naming the parts that are missing.
std::vector<std::filesystem::path> GgufParts(const std::filesystem::path& file);

// The first part, which holds the metadata; `file` itself when it is no part.
std::filesystem::path FirstGgufPart(const std::filesystem::path& file);

// Throws Error(kCorruptData) unless the metadata of part `index` of `count` says that it is that
// part (split.no, split.count); a file that says nothing is whole.
void RequireGgufPart(const GgufMetadata& metadata, size_t index, size_t count);

}  // namespace lwm::io
