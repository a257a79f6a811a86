#include "flags/media_flags.h"

#include <cstdlib>

#include "flags/dtype_flag.h"

namespace lwm::app {

void AddMediaFlags(CLI::App& command, MediaFlags& flags) {
  command.add_option("--vqgan", flags.vqgan,
                     "model directory of the VQGAN that encodes images and videos");
  command.add_option("--code-cache", flags.cache,
                     "folder of what was encoded (default: ~/.cache/lwm/code_cache)");
  command.add_option("--frame-size", flags.frame_size, "side of a frame, pixels; 0: the VQGAN's")
      ->check(CLI::Range(0, 1 << 15))
      ->capture_default_str();
  AddDtypeFlag(command, "--vqgan-dtype", flags.dtype, {"f32", "bf16"}, "arithmetic of the VQGAN");
}

std::filesystem::path UserCodeCache() {
  std::filesystem::path root;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache == '/') {
    root = cache;
  } else if (const char* home = std::getenv("HOME"); home && *home) {
    root = std::filesystem::path(home) / ".cache";
  } else {
    root = std::filesystem::temp_directory_path();
  }
  return root / "lwm" / "code_cache";
}

std::shared_ptr<data::CodeCache> OpenMedia(const MediaFlags& flags,
                                           const std::filesystem::path& folder) {
  if (flags.vqgan.empty()) return nullptr;
  data::CodeCacheOptions options;
  options.vqgan = flags.vqgan;
  options.folder = flags.cache.empty() ? folder : std::filesystem::path(flags.cache);
  options.frame_size = flags.frame_size;
  options.dtype = flags.dtype;
  return std::make_shared<data::CodeCache>(options);
}

}  // namespace lwm::app
