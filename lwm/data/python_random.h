#pragma once

#include <array>
#include <cstdint>

namespace lwm::data {

// CPython's random.Random(seed) for a non-negative integer seed (MT19937 seeded by array), as far
// as published data sets depend on it.
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);

  // random.Random.getrandbits(bits), bits 1 to 32.
  uint32_t GetRandBits(int bits);

  // The index that random.Random.choice takes from a list of `size` entries, size 1 to 2^32 - 1.
  uint32_t ChoiceIndex(uint32_t size);

 private:
  uint32_t Next();
  void Refill();

  static constexpr uint32_t kWords = 624;
  std::array<uint32_t, kWords> state_;
  uint32_t at_ = kWords;
};

}  // namespace lwm::data
