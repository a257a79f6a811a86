#include "lwm/data/python_random.h"

#include <algorithm>
#include <bit>

#include "lwm/base/error.h"

namespace lwm::data {

// Seeding by array as in the generator's reference (Matsumoto and Nishimura 2002); the array is the
// seed's 32-bit digits, least significant first.
PythonRandom::PythonRandom(uint64_t seed) {
  const uint32_t digits[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  const uint32_t num_digits = digits[1] ? 2 : 1;
  state_[0] = 19650218;
  for (uint32_t i = 1; i < kWords; ++i)
    state_[i] = 1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
  uint32_t i = 1, digit = 0;
  const auto step = [&] {
    if (++i == kWords) {
      state_[0] = state_[kWords - 1];
      i = 1;
    }
  };
  for (uint32_t k = 0; k < kWords; ++k) {
    state_[i] =
        (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1664525U)) + digits[digit] + digit;
    digit = (digit + 1) % num_digits;
    step();
  }
  for (uint32_t k = 0; k < kWords - 1; ++k) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1566083941U)) - i;
    step();
  }
  state_[0] = 0x80000000U;
}

void PythonRandom::Refill() {
  for (uint32_t i = 0; i < kWords; ++i) {
    const uint32_t joined = (state_[i] & 0x80000000U) | (state_[(i + 1) % kWords] & 0x7fffffffU);
    state_[i] = state_[(i + 397) % kWords] ^ (joined >> 1) ^ (joined & 1 ? 0x9908b0dfU : 0);
  }
  at_ = 0;
}

uint32_t PythonRandom::Next() {
  if (at_ == kWords) Refill();
  uint32_t word = state_[at_++];
  word ^= word >> 11;
  word ^= (word << 7) & 0x9d2c5680U;
  word ^= (word << 15) & 0xefc60000U;
  return word ^ (word >> 18);
}

uint32_t PythonRandom::GetRandBits(int bits) {
  LWM_CHECK(bits >= 1 && bits <= 32, bits, " bits");
  return Next() >> (32 - bits);
}

uint32_t PythonRandom::ChoiceIndex(uint32_t size) {
  LWM_CHECK(size > 0, "choice from nothing");
  const int bits = std::bit_width(size);
  uint32_t index = GetRandBits(bits);
  while (index >= size) index = GetRandBits(bits);
  return index;
}

}  // namespace lwm::data
