#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

namespace lwm::ops {

// While On, threads of OpenMP that wait for each other soon sleep, which costs a little whenever
// they are woken but leaves the cores to other programs; otherwise they keep their cores busy for
// some milliseconds. GCC's OpenMP waits shortly while it has more threads than cores: this holds a
// second team of threads that sleep. Does nothing where OMP_WAIT_POLICY or GOMP_SPINCOUNT say how
// to wait.
class ShortWaits {
 public:
  // threads: those that the process computes with.
  explicit ShortWaits(int threads) : threads_(threads) {}
  ~ShortWaits() { Set(false); }
  ShortWaits(const ShortWaits&) = delete;
  ShortWaits& operator=(const ShortWaits&) = delete;

  // One thread at a time.
  void Set(bool on);

 private:
  void HoldTeam();

  const int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool held_ = false, done_ = false;
  std::thread master_;
};

}  // namespace lwm::ops
