#include "lwm/data/unit_order.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::data {
namespace {

constexpr double kWeights[] = {0, 0.25, 1, 1.5, 3};
double WeightOf(int64_t unit) { return kWeights[unit % 5]; }

TEST(UnitOrderTest, WeightsSayHowOftenAnEpochVisitsAUnit) {
  const UnitOrder order(7, 100, 20, WeightOf);
  constexpr int64_t kEpochs = 400;
  std::map<int64_t, std::map<int64_t, int>> visits;  // by unit and epoch
  for (int64_t i = 0; i < kEpochs * order.epoch_visits(); ++i) {
    const UnitVisit visit = order.TrainVisit(i);
    EXPECT_EQ(visit.epoch, i / order.epoch_visits());
    if (visit.takes_place) ++visits[visit.unit][visit.epoch];
  }
  for (int64_t i = 0; i < 20; ++i) EXPECT_FALSE(visits.contains(order.HeldOutUnit(i)));
  for (const auto& [unit, of_epoch] : visits) {
    const double weight = WeightOf(unit), chance = weight - std::floor(weight);
    int64_t sum = 0;
    for (const auto& [epoch, times] : of_epoch) {
      EXPECT_GE(times, std::floor(weight));
      EXPECT_LE(times, std::ceil(weight));
      sum += times;
    }
    EXPECT_NEAR(static_cast<double>(sum) / kEpochs, weight,
                1e-12 + 4.5 * std::sqrt(chance * (1 - chance) / kEpochs))
        << unit;
  }
}

TEST(UnitOrderTest, WeightsOfOneChangeNothing) {
  const UnitOrder plain(3, 50, 5), weighted(3, 50, 5, [](int64_t) { return 1.0; });
  ASSERT_EQ(weighted.epoch_visits(), 45);
  for (int64_t i = 0; i < 200; ++i) {
    EXPECT_EQ(weighted.TrainVisit(i).unit, plain.TrainVisit(i).unit);
    EXPECT_TRUE(weighted.TrainVisit(i).takes_place);
  }
}

TEST(UnitOrderTest, OnlyZerosAreRefused) {
  EXPECT_ERROR(UnitOrder(3, 50, 5, [](int64_t) { return 0.0; }), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::data
