#include "lwm/data/unit_order.h"

#include <algorithm>
#include <bit>

#include "lwm/base/error.h"
#include "lwm/base/random.h"

namespace lwm::data {
namespace {

constexpr int kRounds = 6;

}  // namespace

Permutation::Permutation(uint64_t key, int64_t size)
    : key_(key), size_(static_cast<uint64_t>(size)) {
  LWM_CHECK(size >= 1, "permutation of ", size);
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(size_ - 1)) + 1) / 2);
}

uint64_t Permutation::Scramble(uint64_t x) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = x >> half_bits_, right = x & mask;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t next =
        left ^ (DeriveKey(DeriveKey(key_, static_cast<uint64_t>(round)), right) & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

int64_t Permutation::At(int64_t index) const {
  LWM_CHECK(index >= 0 && static_cast<uint64_t>(index) < size_, index, " of ", size_);
  uint64_t x = static_cast<uint64_t>(index);
  do {
    x = Scramble(x);
  } while (x >= size_);
  return static_cast<int64_t>(x);
}

int64_t UnitOrder::TrainUnit(int64_t i) const {
  const int64_t epoch = i / train_units();
  const Permutation order(DeriveKey(seed_, static_cast<uint64_t>(epoch) + 1), train_units());
  return split_.At(held_out_ + order.At(i % train_units()));
}

}  // namespace lwm::data
