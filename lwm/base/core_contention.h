#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace lwm {

// All cores of this machine, including those that this process may not use.
int MachineCores();

// Processor time up to some moment, seconds summed over cores.
struct CoreTimes {
  double busy = 0;  // of all processes, on the cores that this one may use
  double own = 0;   // of this process
  double clock = 0;
};
// busy is negative where the system does not tell.
CoreTimes ReadCoreTimes();

// Cores that others kept busy on average between two moments.
double CoresOfOthers(const CoreTimes& from, const CoreTimes& to);

// Whether, as last seen by a ContentionWatch, other programs want cores that this process computes
// on: a thread that waits for another should then sleep soon. False while nobody watches. Any
// thread.
bool CoresAreContended();

// Checks a few times a second whether this process's threads and the load of other processes
// together exceed the cores that it may use. Only one watch may exist at a time.
class ContentionWatch {
 public:
  // threads: those that this process computes with. changed, which may be empty, runs on the
  // watch's own thread whenever the answer of CoresAreContended() changes.
  ContentionWatch(int threads, std::function<void(bool contended)> changed);
  ~ContentionWatch();
  ContentionWatch(const ContentionWatch&) = delete;
  ContentionWatch& operator=(const ContentionWatch&) = delete;

 private:
  void Watch();
  void Set(bool contended);

  const int threads_;
  const std::function<void(bool)> changed_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace lwm
