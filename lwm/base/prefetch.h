#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace lwm {

// Runs `make` on a thread of its own, up to `ahead` results (at least one) before they are asked
// for, and hands them out in order. `make` returns nothing at the end and is not called again
// after that or after it threw. Threads: Next from one thread at a time; what `make` uses belongs
// to it until the end.
template <class T>
class Prefetch {
 public:
  Prefetch(std::function<std::optional<T>()> make, size_t ahead)
      : make_(std::move(make)), ahead_(std::max<size_t>(1, ahead)), thread_([this] { Run(); }) {}
  // Waits for the call of `make` that is under way.
  ~Prefetch() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  // Throws what `make` threw, after the results made before that.
  std::optional<T> Next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || ended_; });
    if (ready_.empty()) {
      if (error_) std::rethrow_exception(error_);
      return {};
    }
    std::optional<T> result = std::move(ready_.front());
    ready_.pop_front();
    changed_.notify_all();
    return result;
  }

 private:
  void Run() {
    std::exception_ptr error;
    try {
      while (WaitForRoom()) {
        std::optional<T> made = make_();
        if (!made) break;
        const std::lock_guard lock(mutex_);
        ready_.push_back(std::move(*made));
        changed_.notify_all();
      }
    } catch (...) {  // Next throws it
      error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    error_ = error;
    ended_ = true;
    changed_.notify_all();
  }
  // False when nobody will ask again.
  bool WaitForRoom() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopping_ || ready_.size() < ahead_; });
    return !stopping_;
  }

  std::function<std::optional<T>()> make_;
  size_t ahead_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> ready_;
  std::exception_ptr error_;
  bool ended_ = false, stopping_ = false;
  std::thread thread_;  // the last: it uses all others
};

}  // namespace lwm
