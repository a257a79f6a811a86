#include "lwm/ops/short_waits.h"

#include <omp.h>

#include <algorithm>
#include <cstdlib>

namespace lwm::ops {
namespace {

bool UserSaysHowToWait() { return std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT"); }

}  // namespace

void ShortWaits::Set(bool on) {
  if (on == master_.joinable() || UserSaysHowToWait()) return;
  if (on) {
    held_ = done_ = false;
    master_ = std::thread([this] { HoldTeam(); });
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return held_; });
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  master_.join();  // its team goes with it
}

void ShortWaits::HoldTeam() {
  // Together with those that compute one more than there are cores; its master counts twice.
  const int team = std::max(2, omp_get_num_procs() - threads_ + 2);
#pragma omp parallel num_threads(team)
  {}
  std::unique_lock lock(mutex_);
  held_ = true;
  wake_.notify_all();
  wake_.wait(lock, [this] { return done_; });
}

}  // namespace lwm::ops
