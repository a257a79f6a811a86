#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace lwm {

// Peak resident memory of this process so far, bytes (VmHWM).
int64_t PeakMemoryBytes();

// Resident memory of this process now, bytes.
int64_t ResidentMemoryBytes();

// Memory this machine can still give without swapping, bytes: the smaller of MemAvailable and the
// rest of the control group's limit; the page cache does not count as taken.
int64_t AvailableMemoryBytes(const std::filesystem::path& control_group = "/sys/fs/cgroup");

// Throws Error(kResourceExhausted) when that is less than `bytes`: "THINGS need 3.0 GiB of memory,
// 2.0 GiB are left; ADVICE". The OS would end a process that takes too much without a message.
void RequireMemory(double bytes, const std::string& things, const std::string& advice = {});

// CPU cores that this process may run on (its affinity mask).
int AllowedCores();

// Seconds of a monotonic clock, for differences.
double MonotonicSeconds();

// Processor time that this process has used so far on all cores, seconds.
double ProcessSeconds();

}  // namespace lwm
