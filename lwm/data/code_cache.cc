#include "lwm/data/code_cache.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <span>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/format.h"
#include "lwm/base/prefetch.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/io/image_file.h"
#include "lwm/io/media_names.h"
#include "lwm/io/resample.h"
#include "lwm/vision/frames.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

// An entry: magic, number of codes (u64), the codes (i32), then the hash of all that (16 digits).
constexpr char kMagic[] = "lwmcode1";
constexpr size_t kMagicBytes = 8, kHeaderBytes = 16, kHashBytes = 16;

std::string HashText(const std::string& text) { return HashHex(std::as_bytes(std::span(text))); }

// The same for every file form of the same weights.
std::string HashWeights(const checkpoint::VqganSource& source) {
  StreamHash hash;
  for (const vision::VqganSpec& spec : vision::VqganSpecs(source.config())) {
    const at::Tensor weight = source.Read(spec);
    hash.Add({static_cast<const std::byte*>(weight.const_data_ptr()), weight.nbytes()});
  }
  return hash.Hex();
}

// How the frames of a video are chosen and shown, and how images are; to be raised when that
// changes.
// Part of an entry's name: entries of older versions are no longer found.
constexpr int kVideoVersion = 3, kImageVersion = 2;

// The options that change the codes of a file.
std::string Describe(const MediaRequest& request) {
  const vision::VideoOptions& video = request.video;
  const std::string text = fmt::format("fps {} frames {} start {}", video.frames_per_second,
                                       video.max_frames, video.start_seconds);
  return io::IsVideoFile(request.path) ? fmt::format("{} video {}", text, kVideoVersion)
                                       : fmt::format("{} image {}", text, kImageVersion);
}

bool IsDefault(const vision::VideoOptions& video) {
  return video.frames_per_second == 0 && video.max_frames == 0 && video.start_seconds == 0;
}

std::string SerializeEntry(const std::vector<int32_t>& code_n) {
  const uint64_t count = code_n.size();
  std::string bytes(kHeaderBytes + 4 * code_n.size(), '\0');
  std::memcpy(bytes.data(), kMagic, kMagicBytes);
  std::memcpy(bytes.data() + kMagicBytes, &count, sizeof(count));
  std::memcpy(bytes.data() + kHeaderBytes, code_n.data(), 4 * code_n.size());
  return bytes + HashText(bytes);
}

// Nothing when the entry is damaged.
std::optional<std::vector<int32_t>> ParseEntry(const std::string& bytes, int64_t codes_per_frame,
                                               int64_t codebook_size) {
  if (bytes.size() <= kHeaderBytes + kHashBytes || bytes.compare(0, kMagicBytes, kMagic) != 0)
    return {};
  const size_t body = bytes.size() - kHashBytes;
  uint64_t count = 0;
  std::memcpy(&count, bytes.data() + kMagicBytes, sizeof(count));
  // Length, hash and range are all checked: a crash or a full disk may have cut the entry.
  if (count != (body - kHeaderBytes) / 4 || body % 4 != 0 ||
      count % static_cast<uint64_t>(codes_per_frame) != 0 ||
      HashText(bytes.substr(0, body)) != bytes.substr(body))
    return {};
  std::vector<int32_t> code_n(count);
  std::memcpy(code_n.data(), bytes.data() + kHeaderBytes, 4 * code_n.size());
  for (const int32_t code : code_n)
    if (code < 0 || code >= codebook_size) return {};
  return code_n;
}

// An image as its only frame, or the chosen frames of a video, in their own size.
class MediaReader {
 public:
  explicit MediaReader(const MediaRequest& request) {
    if (io::IsVideoFile(request.path))
      video_ = std::make_unique<vision::VideoFrames>(request.path, request.video);
    else
      image_ = io::ReadImage(request.path);
  }
  std::optional<io::RgbImage> Next() {
    if (video_) return video_->Next();
    return std::exchange(image_, std::nullopt);
  }

 private:
  std::unique_ptr<vision::VideoFrames> video_;
  std::optional<io::RgbImage> image_;
};

// Prepared frames of one file or several, and the requests that end after them.
struct FrameBatch {
  std::vector<io::RgbImage> frames;
  std::vector<size_t> request_of_frame;
  std::vector<size_t> ended;
  std::vector<std::pair<size_t, Error>> failed;
};

// Reads the requests one after the other, batch by batch.
class BatchReader {
 public:
  BatchReader(const std::vector<MediaRequest>& requests, int64_t frame_size, int64_t batch)
      : requests_(requests), frame_size_(frame_size), batch_(static_cast<size_t>(batch)) {}

  std::optional<FrameBatch> Next() {
    if (request_ == requests_.size()) return {};
    FrameBatch batch;
    while (request_ < requests_.size() && batch.frames.size() < batch_) AddFrame(batch);
    return batch;
  }

 private:
  void AddFrame(FrameBatch& batch) {
    try {
      if (!reader_) reader_ = std::make_unique<MediaReader>(requests_[request_]);
      if (const auto frame = reader_->Next()) {
        batch.frames.push_back(
            io::ResizeAndCrop(*frame, frame_size_, requests_[request_].path.string()));
        batch.request_of_frame.push_back(request_);
        return;
      }
      batch.ended.push_back(request_);
    } catch (const Error& error) {
      // Kept, not thrown: other files of the batch are good, and this runs on the prefetching
      // thread.
      batch.failed.emplace_back(request_, error);
    }
    reader_.reset();
    ++request_;
  }

  const std::vector<MediaRequest>& requests_;
  int64_t frame_size_;
  size_t batch_, request_ = 0;
  std::unique_ptr<MediaReader> reader_;
};

}  // namespace

// The loaded model.
class CodeCache::Encoder {
 public:
  explicit Encoder(const CodeCacheOptions& options)
      : vqgan_(checkpoint::LoadVqgan(options.vqgan, checkpoint::ToScalarType(options.dtype))) {}

  // Codes of all frames, one after the other.
  std::vector<int32_t> Encode(const std::vector<io::RgbImage>& frames) const {
    const at::Tensor codes =
        vqgan_.Encode(vision::TensorOfFrames(frames)).to(at::kInt).contiguous();
    const int32_t* first = codes.const_data_ptr<int32_t>();
    return {first, first + codes.numel()};
  }

 private:
  vision::Vqgan vqgan_;
};

CodeCache::CodeCache(const CodeCacheOptions& options) : options_(options) {
  LWM_REQUIRE(options.batch >= 1, "code cache: a batch of ", options.batch, " frames");
  const auto source = checkpoint::OpenVqgan(options.vqgan);
  config_ = source->config();
  frame_size_ = options.frame_size > 0 ? options.frame_size : config_.sample_size;
  codes_per_frame_ = config_.CodesPerFrame(frame_size_);
  settings_ = Cat(config::VqganConfigToJson(config_).dump(), '\n', HashWeights(*source), '\n',
                  "size ", frame_size_, ' ', config::NameOf(options.dtype));
}

CodeCache::~CodeCache() = default;

std::vector<int32_t> CodeCache::Codes(const MediaRequest& request) {
  const fs::path entry = EntryOf(request);
  // Looked up without the encoder's lock, so that hits do not wait for an encoding in progress.
  if (auto code_n = ReadEntry(entry)) return std::move(*code_n);
  const std::lock_guard lock(encoder_mutex_);
  if (auto code_n = ReadEntry(entry)) return std::move(*code_n);  // by another thread meanwhile
  std::vector<int32_t> result;
  Encode(
      {request}, [&](size_t, std::vector<int32_t> code_n) { result = std::move(code_n); },
      [](size_t, const Error& error) { throw error; });
  return result;
}

int64_t CodeCache::Fill(const std::vector<MediaRequest>& requests,
                        const std::function<void(int64_t done)>& progress) {
  int64_t failed = 0;
  std::vector<MediaRequest> missing;
  std::set<fs::path> entries;  // of `missing`: several lines may name one file
  for (const MediaRequest& request : requests) {
    try {
      const fs::path entry = EntryOf(request);
      if (!ReadEntry(entry) && entries.insert(entry).second) missing.push_back(request);
    } catch (const Error&) {
      ++failed;
    }
  }
  auto done = static_cast<int64_t>(requests.size() - missing.size());
  progress(done);
  const std::lock_guard lock(encoder_mutex_);
  Encode(
      missing, [&](size_t, const std::vector<int32_t>&) { progress(++done); },
      [&](size_t, const Error&) {
        ++failed;
        progress(++done);
      });
  return failed;
}

void CodeCache::Encode(const std::vector<MediaRequest>& requests,
                       const std::function<void(size_t, std::vector<int32_t>)>& done,
                       const std::function<void(size_t, const Error&)>& failed) {
  if (requests.empty()) return;
  std::vector<fs::path> entries;  // before anything is read: they name the content
  for (const MediaRequest& request : requests) entries.push_back(EntryOf(request));
  // Loaded at the first miss: a run whose entries are all there never loads the VQGAN.
  if (!encoder_) encoder_ = std::make_unique<Encoder>(options_);
  BatchReader reader(requests, frame_size_, options_.batch);
  // Two batches ahead: decoding media and the VQGAN overlap.
  Prefetch<FrameBatch> batches([&] { return reader.Next(); }, 2);
  std::map<size_t, std::vector<int32_t>> codes_of;  // of requests that have not ended
  while (const auto batch = batches.Next()) {
    if (!batch->frames.empty()) {
      const std::vector<int32_t> code_n = encoder_->Encode(batch->frames);
      const auto size = static_cast<size_t>(codes_per_frame_);
      LWM_CHECK(code_n.size() == size * batch->frames.size(), code_n.size(), " codes");
      for (size_t i = 0; i < batch->frames.size(); ++i) {
        auto& codes = codes_of[batch->request_of_frame[i]];
        const auto first = code_n.begin() + static_cast<int64_t>(i * size);
        codes.insert(codes.end(), first, first + codes_per_frame_);
      }
      const std::lock_guard lock(mutex_);
      counts_.frames += static_cast<int64_t>(batch->frames.size());
    }
    for (const size_t request : batch->ended) {
      // An entry is written when its last frame is encoded: a run that stops keeps the finished
      // ones.
      std::vector<int32_t> code_n = std::move(codes_of[request]);
      codes_of.erase(request);
      if (IsStill(entries[request], requests[request])) Keep(entries[request], code_n);
      done(request, std::move(code_n));
    }
    for (const auto& [request, error] : batch->failed) {
      codes_of.erase(request);
      failed(request, error);
    }
  }
}

bool CodeCache::IsStill(const fs::path& entry, const MediaRequest& request) {
  try {
    return EntryOf(request) == entry;
  } catch (const Error&) {  // deleted meanwhile
    return false;
  }
}

void CodeCache::Keep(const fs::path& entry, const std::vector<int32_t>& code_n) {
  const bool damaged = fs::exists(entry);
  WriteEntry(entry, code_n);
  const std::lock_guard lock(mutex_);
  ++counts_.encoded;
  counts_.damaged += damaged;
}

std::optional<std::vector<int32_t>> CodeCache::Find(const MediaRequest& request) {
  return ReadEntry(EntryOf(request));
}

void CodeCache::Unload() {
  const std::lock_guard lock(encoder_mutex_);
  encoder_.reset();
}

CodeCache::Counts CodeCache::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

fs::path CodeCache::EntryOf(const MediaRequest& request) {
  std::error_code ignored;
  LWM_REQUIRE_AS(ErrorCode::kNotFound, fs::is_regular_file(request.path, ignored), "cannot read ",
                 request.path.string(), ": no such file");
  LWM_REQUIRE(io::IsVideoFile(request.path) || IsDefault(request.video), request.path.string(),
              " is an image: fps, frames and start are for videos");
  const std::string content = ContentHash(request.path);
  return options_.folder /
         Cat(content, "-", HashText(settings_ + '\n' + Describe(request)), ".codes");
}

std::string CodeCache::ContentHash(const fs::path& path) {
  // Hashing a video can take seconds; within a process its size and time of change stand for it.
  const auto changed = fs::last_write_time(path).time_since_epoch().count();
  const std::string version = Cat(path.string(), '\n', fs::file_size(path), '\n', changed);
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = content_hash_.find(version); known != content_hash_.end())
      return known->second;
  }
  const MappedFile file(path);
  // The size beside the 64-bit hash makes two files of one name less likely still.
  const std::string hash = Cat(HashHex(file.bytes()), "-", file.bytes().size());
  const std::lock_guard lock(mutex_);
  return content_hash_[version] = hash;
}

std::optional<std::vector<int32_t>> CodeCache::ReadEntry(const fs::path& entry) {
  std::error_code ignored;
  if (!fs::exists(entry, ignored)) return {};
  auto code_n = ParseEntry(ReadFile(entry), codes_per_frame_, codebook_size());
  if (!code_n) return {};
  const std::lock_guard lock(mutex_);
  ++counts_.found;
  return code_n;
}

// Without fsync, which would take longer than to encode a small image: what a crash leaves of an
// entry fails its checksum and is made anew.
void CodeCache::WriteEntry(const fs::path& entry, const std::vector<int32_t>& code_n) const {
  const fs::path temporary = TemporaryBeside(entry);
  try {
    fs::create_directories(options_.folder);
    OutputFile(temporary).Write(SerializeEntry(code_n));
    fs::rename(temporary, entry);
  } catch (const std::exception& error) {  // Error or the file system's
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw Error(ErrorCode::kResourceExhausted, Cat("the code cache in ", options_.folder.string(),
                                                   " cannot be written: ", error.what()));
  }
}

}  // namespace lwm::data
