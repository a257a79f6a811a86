#include "frame_progress.h"

#include <algorithm>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/format.h"
#include "lwm/base/text.h"

namespace lwm::app {

void FrameProgress::Add(int64_t frames, double share) {
  done_ += frames;
  if (!progress_.is_due()) return;
  std::string line = Cat(what_, " ", CountOf(done_, "frame"));
  line += fmt::format(", {:.2f} frames/s", Rate());
  if (share > 0)
    line += fmt::format(", {:.1f} %, {} left", 100 * share,
                        FormatDuration(Seconds() * (1 - share) / share));
  progress_.Show(line);
}

void FrameProgress::Finish(int threads) {
  const double busy =
      (ProcessSeconds() - start_cpu_) / (std::max(1e-9, Seconds()) * std::max(1, threads));
  progress_.Finish(fmt::format("{} {} in {}, {:.2f} frames/s; {:.0f} % of {}; peak memory {}",
                               what_, CountOf(done_, "frame"), FormatDuration(Seconds()), Rate(),
                               100 * busy, CountOf(threads, "core"),
                               FormatBytes(static_cast<double>(PeakMemoryBytes()))));
}

double FrameProgress::Rate() const {
  return static_cast<double>(done_) / std::max(1e-9, Seconds());
}

}  // namespace lwm::app
