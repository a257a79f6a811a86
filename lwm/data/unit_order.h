#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace lwm::data {

// A pseudo-random permutation of [0, size): At(i) is a pure function of (key, size, i), in O(1)
// time and memory (a Feistel network that walks its cycle until it is back inside). Domain: size
// >= 1.
class Permutation {
 public:
  Permutation(uint64_t key, int64_t size);
  int64_t At(int64_t index) const;

 private:
  uint64_t Scramble(uint64_t x) const;

  uint64_t key_;
  uint64_t size_;
  int half_bits_;
};

// One entry of the endless sequence of epochs.
struct UnitVisit {
  int64_t unit = 0, epoch = 0;
  bool takes_place = true;  // false: this epoch passes over the unit, as its weight has it
};

// Divides `units` of a source into a held-out part and a training part, and orders the training
// part anew in every epoch.
class UnitOrder {
 public:
  // held_out: how many, 0 <= held_out < units.
  UnitOrder(uint64_t seed, int64_t units, int64_t held_out)
      : seed_(seed), units_(units), held_out_(held_out), split_(seed, units) {}

  // An epoch visits a training unit of weight w floor(w) times, and once more with the chance of
  // the remainder of w, drawn from (seed, epoch, unit). Memory: 16 B per training unit. Throws
  // Error(kInvalidArgument) when no weight is above 0 or less than one visit in 10000 takes place.
  UnitOrder(uint64_t seed, int64_t units, int64_t held_out,
            const std::function<double(int64_t unit)>& weight_of);

  int64_t held_out_units() const { return held_out_; }
  int64_t train_units() const { return units_ - held_out_; }
  // Entries of an epoch: train_units, or with weights the sum of all rounded up.
  int64_t epoch_visits() const;

  int64_t HeldOutUnit(int64_t i) const { return split_.At(i); }
  // Number i of the endless sequence of epochs.
  UnitVisit TrainVisit(int64_t i) const;

 private:
  struct Weights {
    std::vector<int64_t> end_n;    // of each training unit's entries
    std::vector<double> chance_n;  // of its last entry; 1 for a whole weight
  };
  uint64_t seed_;
  int64_t units_, held_out_;
  Permutation split_;
  std::shared_ptr<const Weights> weights_;  // nullptr = 1 for all
};

}  // namespace lwm::data
