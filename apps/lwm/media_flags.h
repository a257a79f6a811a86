#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "lwm/vision/code_cache.h"

namespace lwm::app {

// The VQGAN that makes codes of pictures and videos.
struct MediaFlags {
  std::string vqgan, cache, dtype = "f32";
  int64_t frame_size = 0;
};

// --vqgan, --code-cache, --frame-size, --vqgan-dtype.
void AddMediaFlags(CLI::App& command, MediaFlags& flags);

// A folder of this user's for what a command that only looks has encoded: the data's own folder is
// not written to. $XDG_CACHE_HOME or ~/.cache, without a home the system's temporary folder.
std::filesystem::path UserCodeCache();

// nullptr without --vqgan. The cache is `folder` unless --code-cache says otherwise.
std::shared_ptr<vision::CodeCache> OpenMedia(const MediaFlags& flags,
                                             const std::filesystem::path& folder);

}  // namespace lwm::app
