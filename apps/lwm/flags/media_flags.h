#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "lwm/data/code_cache.h"

namespace lwm::app {

// The VQGAN that makes codes of images and videos.
struct MediaFlags {
  std::string vqgan, cache;
  config::Dtype dtype = config::Dtype::kF32;
  int64_t frame_size = 0;
};

// --vqgan, --code-cache, --frame-size, --vqgan-dtype.
void AddMediaFlags(CLI::App& command, MediaFlags& flags);

// The per-user code cache, for commands that must not write into the data's own folder. Under
// $XDG_CACHE_HOME or ~/.cache, or in the system's temporary folder if there is no home.
std::filesystem::path UserCodeCache();

// nullptr without --vqgan. The cache is `folder` unless --code-cache says otherwise.
std::shared_ptr<data::CodeCache> OpenMedia(const MediaFlags& flags,
                                           const std::filesystem::path& folder);

}  // namespace lwm::app
