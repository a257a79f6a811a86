#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/config/dtype.h"
#include "lwm/config/vqgan_config.h"
#include "lwm/vision/video_frames.h"

namespace lwm::data {

// An image or video that is wanted as codes. `video` is for videos only.
struct MediaRequest {
  std::filesystem::path path;
  vision::VideoOptions video;
};

struct CodeCacheOptions {
  std::filesystem::path vqgan;   // as for OpenVqgan
  std::filesystem::path folder;  // of the entries; made when the first one is written
  int64_t frame_size = 0;        // side of the prepared frames, pixels; 0 = the VQGAN's sample_size
  config::Dtype dtype = config::Dtype::kF32;  // arithmetic of the VQGAN
  int64_t batch = 8;                          // frames encoded at once
};

// Images and videos as codes, each encoded once and kept on disk. The name of an entry comes from
// the bytes of the media file, the VQGAN's config and weights, and how frames are chosen and
// prepared, so moved files are found, changed ones are not, and runs, chat and servers may share
// one folder. An entry is a small file with a checksum, written whole or not at all: several
// processes may use the folder at once (at worst two encode the same file), and a damaged entry is
// made anew.
//
// Cost: opening hashes the VQGAN's weights; a request that is found reads one small file, and once
// per process hashes the media file. The VQGAN is loaded when the first request is not found.
// Threads: all methods from any thread; one encodes at a time.
class CodeCache {
 public:
  // Throws as OpenVqgan does, and Error(kInvalidArgument) when frame_size gives no whole code.
  explicit CodeCache(const CodeCacheOptions& options);
  ~CodeCache();
  CodeCache(const CodeCache&) = delete;
  CodeCache& operator=(const CodeCache&) = delete;

  const config::VqganConfig& config() const { return config_; }
  int64_t frame_size() const { return frame_size_; }
  int64_t codes_per_frame() const { return codes_per_frame_; }
  int64_t codebook_size() const { return config_.num_vq_embeddings; }

  // The codes of all chosen frames, codes_per_frame() each, rows from the top. Throws
  // Error(kNotFound) when the file is missing, Error(kCorruptData) when it cannot be decoded,
  // Error(kInvalidArgument) when video options are given for an image, Error(kResourceExhausted)
  // when the entry cannot be written.
  std::vector<int32_t> Codes(const MediaRequest& request);

  // The same if they are in the folder; nothing when they are not, or the entry is damaged.
  std::optional<std::vector<int32_t>> Find(const MediaRequest& request);

  // Encodes the requests that are not in the folder yet, frames of several files in one batch and
  // decoding beside encoding; progress(requests done) now and then. Files that cannot be decoded
  // are left out: Codes says why. Returns their number.
  int64_t Fill(const std::vector<MediaRequest>& requests,
               const std::function<void(int64_t done)>& progress);

  // Frees the VQGAN's memory until it is needed again.
  void Unload();

  struct Counts {
    int64_t found = 0, encoded = 0;  // requests
    int64_t damaged = 0;             // entries made anew
    int64_t frames = 0;              // encoded
  };
  Counts counts() const;

 private:
  class Encoder;
  // Calls done(codes) for every request in order, or failed(request, error).
  void Encode(const std::vector<MediaRequest>& requests,
              const std::function<void(size_t, std::vector<int32_t>)>& done,
              const std::function<void(size_t, const Error&)>& failed);
  std::filesystem::path EntryOf(const MediaRequest& request);
  // Whether the media file has the content that `entry` names; not when it changed meanwhile.
  bool IsStill(const std::filesystem::path& entry, const MediaRequest& request);
  std::string ContentHash(const std::filesystem::path& path);
  std::optional<std::vector<int32_t>> ReadEntry(const std::filesystem::path& entry);
  void Keep(const std::filesystem::path& entry, const std::vector<int32_t>& code_n);
  void WriteEntry(const std::filesystem::path& entry, const std::vector<int32_t>& code_n) const;

  CodeCacheOptions options_;
  config::VqganConfig config_;
  int64_t frame_size_, codes_per_frame_;
  std::string settings_;  // config, weights and size, common to all entries, as text

  mutable std::mutex mutex_;                         // of the next two
  std::map<std::string, std::string> content_hash_;  // by path, size and time of change
  Counts counts_;
  std::mutex encoder_mutex_;
  std::unique_ptr<Encoder> encoder_;
};

}  // namespace lwm::data
