#include "lwm/io/background_file.h"

#include <algorithm>

namespace lwm::io {
namespace {

constexpr size_t kBufferBytes = 1 << 20, kBuffers = 3;  // besides the one being filled

}  // namespace

BackgroundFile::~BackgroundFile() {
  {
    const std::lock_guard lock(mutex_);
    // Not finished: the file is being given up, so its bytes need not reach the disk.
    waiting_.clear();
  }
  Stop();
}

void BackgroundFile::Write(const void* data, size_t bytes) {
  const auto* from = static_cast<const std::byte*>(data);
  position_ += bytes;
  while (bytes > 0) {
    if (filling_.capacity() == 0) filling_.reserve(kBufferBytes);
    const size_t now = std::min(bytes, kBufferBytes - filling_.size());
    filling_.insert(filling_.end(), from, from + now);
    from += now;
    bytes -= now;
    if (filling_.size() == kBufferBytes) HandOver();
  }
}

void BackgroundFile::HandOver() {
  // Only when the first buffer is full: small files need no thread.
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  std::unique_lock lock(mutex_);
  // A disk slower than the caller holds it up here, so memory stays bounded.
  changed_.wait(lock, [&] { return waiting_.size() < kBuffers || error_; });
  if (error_) std::rethrow_exception(error_);
  waiting_.push_back(std::move(filling_));
  filling_ = {};
  if (!free_.empty()) {
    filling_ = std::move(free_.back());
    free_.pop_back();
  }
  changed_.notify_all();
}

void BackgroundFile::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return !waiting_.empty() || stopping_; });
    if (waiting_.empty()) return;
    // Written without the lock: the caller fills the next buffer meanwhile.
    Buffer buffer = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    std::exception_ptr error;
    try {
      file_.Write(buffer.data(), buffer.size());
    } catch (...) {  // the next Write or Finish throws it
      error = std::current_exception();
    }
    buffer.clear();
    lock.lock();
    free_.push_back(std::move(buffer));
    if (error) error_ = error;
    changed_.notify_all();
    if (error) return;
  }
}

void BackgroundFile::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void BackgroundFile::Finish() {
  Stop();
  if (error_) std::rethrow_exception(error_);
  file_.Write(filling_.data(), filling_.size());
  filling_.clear();
  file_.Finish();
}

}  // namespace lwm::io
