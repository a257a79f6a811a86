#include "frame_progress.h"

#include <algorithm>
#include <cstdio>

#include "lwm/base/error.h"
#include "lwm/base/text.h"

namespace lwm::app {

void FrameProgress::Add(int64_t frames, double share) {
  done_ += frames;
  const double now = MonotonicSeconds();
  if (now - shown_ < 3) return;
  shown_ = now;
  std::string line = Cat(what_, " ", done_, " frames");
  char text[64];
  std::snprintf(text, sizeof(text), ", %.2f frames/s", Rate());
  line += text;
  if (share > 0) {
    std::snprintf(text, sizeof(text), ", %.1f %%, ", 100 * share);
    line += text + FormatDuration(Seconds() * (1 - share) / share) + " left";
  }
  std::fprintf(stderr, "%s\n", line.c_str());
}

void FrameProgress::Finish(int threads) const {
  const double busy =
      (ProcessSeconds() - start_cpu_) / (std::max(1e-9, Seconds()) * std::max(1, threads));
  std::fprintf(stderr, "%s %lld frames in %s, %.2f frames/s; %.0f %% of %d %s; peak memory %s\n",
               what_, static_cast<long long>(done_), FormatDuration(Seconds()).c_str(), Rate(),
               100 * busy, threads, threads == 1 ? "core" : "cores",
               FormatBytes(static_cast<double>(PeakMemoryBytes())).c_str());
}

double FrameProgress::Rate() const {
  return static_cast<double>(done_) / std::max(1e-9, Seconds());
}

}  // namespace lwm::app
