#include "lwm/base/process.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <limits>
#include <string>

#include "lwm/base/error.h"
#include "lwm/base/text.h"

namespace lwm {
namespace {

// The value in bytes of a "Name:   123 kB" line, or -1.
int64_t KilobyteField(const char* file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.rfind(name + ":", 0) == 0) return std::stoll(line.substr(name.size() + 1)) * 1024;
  return -1;
}

// The number in a control-group file, or -1 when it is absent or "max".
int64_t ControlGroupValue(const std::filesystem::path& file) {
  int64_t value = -1;
  std::ifstream in(file);
  return in >> value ? value : -1;
}

// Bytes of the page cache that the control group is charged for; the system drops them when it
// wants room, so they do not count as used.
int64_t ControlGroupFileBytes(const std::filesystem::path& folder) {
  int64_t sum = 0, value = 0;
  std::ifstream in(folder / "memory.stat");
  for (std::string name; in >> name >> value;)
    if (name == "active_file" || name == "inactive_file") sum += value;
  return sum;
}

}  // namespace

int64_t PeakMemoryBytes() {
  return std::max<int64_t>(0, KilobyteField("/proc/self/status", "VmHWM"));
}

int64_t ResidentMemoryBytes() {
  return std::max<int64_t>(0, KilobyteField("/proc/self/status", "VmRSS"));
}

int64_t AvailableMemoryBytes(const std::filesystem::path& control_group) {
  int64_t available = KilobyteField("/proc/meminfo", "MemAvailable");
  if (available < 0) available = std::numeric_limits<int64_t>::max();
  // Control groups, version 2. In a container MemAvailable is the host's; the smaller one holds.
  const int64_t limit = ControlGroupValue(control_group / "memory.max");
  const int64_t charged = ControlGroupValue(control_group / "memory.current");
  if (limit < 0 || charged < 0) return available;
  const int64_t used = std::max<int64_t>(0, charged - ControlGroupFileBytes(control_group));
  available = std::min(available, std::max<int64_t>(0, limit - used));
  return available;
}

void RequireMemory(double bytes, const std::string& things, const std::string& advice) {
  const auto available = static_cast<double>(AvailableMemoryBytes());
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, bytes <= available, things, " need ",
                 FormatBytes(bytes), " of memory, ", FormatBytes(available), " are left",
                 advice.empty() ? "" : "; ", advice);
}

int AllowedCores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return 1;
  return std::max(1, CPU_COUNT(&mask));
}

double MonotonicSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double ProcessSeconds() {
  timespec used = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
}

}  // namespace lwm
