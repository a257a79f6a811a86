#include "progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/format.h"
#include "lwm/base/text.h"

namespace lwm::app {
namespace {

constexpr double kSecondsOnTerminal = 0.2, kSecondsInFile = 10;
constexpr char kClearLine[] = "\r\033[K";

}  // namespace

Progress::Progress(const char* what, const char* unit)
    : what_(what),
      unit_(unit),
      terminal_(isatty(STDERR_FILENO) == 1),
      pace_(terminal_ ? kSecondsOnTerminal : kSecondsInFile) {}

Progress::~Progress() {
  if (is_open_) std::fprintf(stderr, "%s", kClearLine);
}

void Progress::Update(int64_t done, double share) {
  done_ = done;
  if (!is_due()) return;
  const std::string left = share > 0 ? ", " + pace_.Left(share) : "";
  Show(Cat(what_, " ", CountOf(done_, unit_), ", ", Rate(), left));
}

void Progress::Finish(int threads) {
  const double busy =
      (ProcessSeconds() - start_cpu_) / (std::max(1e-9, seconds()) * std::max(1, threads));
  Finish(fmt::format("{} {} in {}, {}; {:.0f} % of {}; peak memory {}", what_,
                     CountOf(done_, unit_), FormatDuration(seconds()), Rate(), 100 * busy,
                     CountOf(threads, "core"),
                     FormatBytes(static_cast<double>(PeakMemoryBytes()))));
}

void Progress::Show(const std::string& line) {
  pace_.Shown();
  is_open_ = terminal_;
  // Back at its beginning, so that messages of others overwrite it.
  std::fprintf(stderr, terminal_ ? "\r\033[K%s\r" : "%s\n", line.c_str());
}

void Progress::Finish(const std::string& line) {
  std::fprintf(stderr, "%s%s\n", is_open_ ? kClearLine : "", line.c_str());
  is_open_ = false;
}

std::string Progress::Rate() const {
  const double rate = pace_.Rate(static_cast<double>(done_));
  return fmt::format("{:.{}f} {}s/s", rate, rate < 100 ? 2 : 0, unit_);
}

}  // namespace lwm::app
