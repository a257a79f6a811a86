#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "lwm/kernels/attention/tile.h"
#include "lwm/ops/attention/block.h"
#include "lwm/ops/attention/tiling.h"

namespace lwm::ops {

// A pass computes the pairs of tiles of one side (queries forward, keys backward: its places)
// with one or two runs of the other. If the next hop's block arrives during a pass, the pass ends
// early, and a second one gives the places that were not done both runs, the others the new run
// only. So the sums of most places are read and written once for two hops, and each sum keeps its
// order.

// The tiles of the next hop's block: KeyTiles forward, QueryTiles backward. Taken by the calling
// thread, which is the one that may call MPI; the others see them through there().
template <class Tiles>
class JoiningTiles {
 public:
  // The tiling of the block once it has arrived, until then nullptr.
  using Arrived = std::function<std::unique_ptr<AttentionTiling>()>;
  // Its tiles, or nullptr where they take several passes: then the block does not join.
  using Make = std::function<std::unique_ptr<Tiles>(const AttentionTiling&)>;

  JoiningTiles(Arrived arrived, Make make) : arrived_(std::move(arrived)), make_(std::move(make)) {}

  // On the calling thread. Nor does a block join that needs tiles of another shape.
  void Poll(const kernels::AttentionTileShape& shape) {
    if (tiling_) return;
    tiling_ = arrived_();
    if (!tiling_ || tiling_->shape != shape) return;
    tiles_ = make_(*tiling_);
    there_ = tiles_ != nullptr;
  }
  // Any thread.
  bool there() const { return there_; }
  Tiles& tiles() { return *tiles_; }

 private:
  const Arrived arrived_;
  const Make make_;
  std::unique_ptr<AttentionTiling> tiling_;
  std::unique_ptr<Tiles> tiles_;
  std::atomic<bool> there_{false};
};

// Deals the places 0 .. places - 1 to all threads from one counter: calls work(take, poll) on each.
// take() is the next place, or nothing when all are taken or joining tiles are there. Call poll()
// between tiles: on the calling thread it lets transfers progress and tiles join. Returns the
// number of places taken. `joining` may be nullptr.
template <class Tiles, class Work>
int64_t RunTilePass(int64_t places, const kernels::AttentionTileShape& shape,
                    const Progress& progress, JoiningTiles<Tiles>* joining, const Work& work) {
  std::atomic<int64_t> next{0};
  const std::thread::id caller = std::this_thread::get_id();
  OnEachThread([&] {
    const bool polls = std::this_thread::get_id() == caller;
    const auto poll = [&] {
      if (polls && progress) progress();
      if (polls && joining) joining->Poll(shape);
    };
    const auto take = [&]() -> std::optional<int64_t> {
      if (joining && joining->there()) return {};
      const int64_t place = next++;
      return place < places ? std::optional(place) : std::nullopt;
    };
    work(take, poll);
  });
  return std::min<int64_t>(next, places);
}

}  // namespace lwm::ops
