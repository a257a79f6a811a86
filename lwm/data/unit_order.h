#pragma once

#include <cstdint>

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

// Divides `units` of a source into a held-out part and a training part, and orders the training
// part anew in every epoch.
class UnitOrder {
 public:
  // held_out: how many, 0 <= held_out < units.
  UnitOrder(uint64_t seed, int64_t units, int64_t held_out)
      : seed_(seed), units_(units), held_out_(held_out), split_(seed, units) {}

  int64_t held_out_units() const { return held_out_; }
  int64_t train_units() const { return units_ - held_out_; }

  int64_t HeldOutUnit(int64_t i) const { return split_.At(i); }
  // Number i of the endless sequence of epochs.
  int64_t TrainUnit(int64_t i) const;

 private:
  uint64_t seed_;
  int64_t units_, held_out_;
  Permutation split_;
};

}  // namespace lwm::data
