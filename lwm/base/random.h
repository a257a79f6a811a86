#pragma once

#include <cstdint>

namespace lwm {

// Counter-based random numbers: value i of stream `key` is a pure function of (key, i), so any rank
// can draw any element and a resumed run needs no stored generator. SplitMix64's finaliser over the
// golden-ratio sequence (Steele et al. 2014). Not for cryptography.
constexpr uint64_t MixBits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// A key for a sub-stream: different (key, index) give unrelated streams.
constexpr uint64_t DeriveKey(uint64_t key, uint64_t index) {
  return MixBits(MixBits(key + 0x9e3779b97f4a7c15ULL) ^ (index * 0xd1342543de82ef95ULL + 1));
}

class Random {
 public:
  explicit constexpr Random(uint64_t key, uint64_t counter = 0) : key_(key), counter_(counter) {}

  constexpr uint64_t Next() { return MixBits(MixBits(key_) + ++counter_ * 0x9e3779b97f4a7c15ULL); }
  // Uniform in [0, 1), 53 bits.
  constexpr double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // Uniform in [0, bound), bound >= 1; bias below bound / 2^64.
  constexpr uint64_t Below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * bound) >> 64);
  }
  constexpr uint64_t counter() const { return counter_; }

 private:
  uint64_t key_;
  uint64_t counter_;
};

}  // namespace lwm
