#include "lwm/data/unit_order.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/random.h"

namespace lwm::data {
namespace {

constexpr int kRounds = 6;
constexpr double kLeastChance = 1e-4;  // of a visit: below, looking for one takes long

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

UnitOrder::UnitOrder(uint64_t seed, int64_t units, int64_t held_out,
                     const std::function<double(int64_t unit)>& weight_of)
    : UnitOrder(seed, units, held_out) {
  auto weights = std::make_shared<Weights>();
  int64_t end = 0;
  double sum = 0;
  for (int64_t i = 0; i < train_units(); ++i) {
    const double weight = weight_of(split_.At(held_out_ + i)), whole = std::floor(weight);
    sum += weight;
    end += static_cast<int64_t>(std::ceil(weight));
    weights->end_n.push_back(end);
    weights->chance_n.push_back(weight > whole ? weight - whole : 1);
  }
  LWM_REQUIRE(end > 0, "all ", train_units(), " training lines have the weight 0");
  LWM_REQUIRE(sum >= kLeastChance * static_cast<double>(end), "the weights of ", train_units(),
              " training lines sum to ", sum,
              ": an epoch would show next to nothing; scale them up");
  weights_ = std::move(weights);
}

int64_t UnitOrder::epoch_visits() const {
  return weights_ ? weights_->end_n.back() : train_units();
}

UnitVisit UnitOrder::TrainVisit(int64_t i) const {
  UnitVisit visit{0, i / epoch_visits(), true};
  const uint64_t key = DeriveKey(seed_, static_cast<uint64_t>(visit.epoch) + 1);
  const int64_t at = Permutation(key, epoch_visits()).At(i % epoch_visits());
  if (!weights_) {
    visit.unit = split_.At(held_out_ + at);
    return visit;
  }
  const auto& end_n = weights_->end_n;
  const auto entry = std::upper_bound(end_n.begin(), end_n.end(), at) - end_n.begin();
  visit.unit = split_.At(held_out_ + entry);
  const bool last = at + 1 == end_n[static_cast<size_t>(entry)];
  const uint64_t draw = DeriveKey(~key, static_cast<uint64_t>(visit.unit));
  visit.takes_place =
      !last || Random(draw).Uniform() < weights_->chance_n[static_cast<size_t>(entry)];
  return visit;
}

}  // namespace lwm::data
