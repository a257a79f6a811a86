#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "lwm/base/file.h"

namespace lwm::io {

// A file being written by a thread of its own, so that the caller prepares more while the system
// takes what came before. Small files are written without a thread. Memory: 4 MiB. Not for
// concurrent use.
class BackgroundFile {
 public:
  // Creates or truncates. Throws as OutputFile does.
  explicit BackgroundFile(const std::filesystem::path& path) : file_(path) {}
  ~BackgroundFile();
  BackgroundFile(const BackgroundFile&) = delete;
  BackgroundFile& operator=(const BackgroundFile&) = delete;

  // Throws what writing earlier bytes threw.
  void Write(const void* data, size_t bytes);
  void Write(std::string_view text) { Write(text.data(), text.size()); }
  uint64_t position() const { return position_; }
  // Waits for all bytes, fsyncs and closes.
  void Finish();

 private:
  using Buffer = std::vector<std::byte>;

  void HandOver();
  void Run();
  void Stop();

  OutputFile file_;
  uint64_t position_ = 0;
  Buffer filling_;

  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Buffer> waiting_;  // this and the members below are shared with the thread
  std::vector<Buffer> free_;
  bool stopping_ = false;
  std::exception_ptr error_;
};

}  // namespace lwm::io
