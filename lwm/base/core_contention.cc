#include "lwm/base/core_contention.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>

#include "lwm/base/process.h"

namespace lwm {
namespace {

// The first look comes soon, since a command may be over in a second; later ones average more, for
// the system counts in hundredths of a second.
constexpr auto kFirstLook = std::chrono::milliseconds(60), kLook = std::chrono::milliseconds(250);

// Cores that others may use before it counts: the housekeeping of an idle system, and the error of
// counting it core by core.
double SpareCores(int cores) { return 0.25 + 0.02 * cores; }

std::atomic<bool> cores_are_contended{false};

// Busy ticks in a line "cpuN user nice system idle iowait irq softirq steal ..." of /proc/stat.
// Steal is not counted: another virtual machine had that time, no process of this system.
double BusyTicks(std::istringstream& numbers) {
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, softirq = 0;
  numbers >> user >> nice >> system >> idle >> wait >> irq >> softirq;
  return user + nice + system + irq + softirq;
}

}  // namespace

int MachineCores() { return std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN))); }

CoreTimes ReadCoreTimes() {
  CoreTimes times{-1, ProcessSeconds(), MonotonicSeconds()};
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return times;
  std::ifstream in("/proc/stat");
  double ticks = 0;
  bool any = false;
  for (std::string line; std::getline(in, line) && line.rfind("cpu", 0) == 0;) {
    if (line.size() < 4 || line[3] < '0' || line[3] > '9') continue;  // "cpu ": all of them
    std::istringstream numbers(line.substr(3));
    int core = 0;
    numbers >> core;
    if (core >= CPU_SETSIZE || !CPU_ISSET(core, &allowed)) continue;
    ticks += BusyTicks(numbers);
    any = true;
  }
  if (any) times.busy = ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
  return times;
}

double CoresOfOthers(const CoreTimes& from, const CoreTimes& to) {
  if (from.busy < 0 || to.busy < 0 || to.clock <= from.clock) return 0;
  // Own time is exact, busy time is in ticks: the difference of two looks can fall below 0.
  const double others = (to.busy - from.busy) - (to.own - from.own);
  return std::max(0.0, others / (to.clock - from.clock));
}

bool CoresAreContended() { return cores_are_contended.load(std::memory_order_relaxed); }

ContentionWatch::ContentionWatch(int threads, std::function<void(bool contended)> changed)
    : threads_(threads), changed_(std::move(changed)), thread_([this] { Watch(); }) {}

ContentionWatch::~ContentionWatch() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  thread_.join();
  Set(false);
}

void ContentionWatch::Watch() {
  CoreTimes before = ReadCoreTimes();
  auto wait = kFirstLook;
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, wait, [this] { return done_; })) {
    const CoreTimes now = ReadCoreTimes();
    const int cores = AllowedCores();
    Set(threads_ + CoresOfOthers(before, now) > cores + SpareCores(cores));
    before = now;
    wait = kLook;
  }
}

void ContentionWatch::Set(bool now) {
  if (cores_are_contended.exchange(now, std::memory_order_relaxed) != now && changed_)
    changed_(now);
}

}  // namespace lwm
