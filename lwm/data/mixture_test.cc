#include "lwm/data/mixture.h"

#include <gtest/gtest.h>

namespace lwm::data {
namespace {

TEST(MixtureTest, SourcesKeepToTheirSharesAfterEveryRow) {
  Mixture mixture({6, 3, 1});
  EXPECT_EQ(mixture.shares(), (std::vector<double>{0.6, 0.3, 0.1}));
  for (int row = 1; row <= 50; ++row) {
    mixture.Next();
    for (size_t s = 0; s < 3; ++s)
      EXPECT_NEAR(static_cast<double>(mixture.rows()[s]), row * mixture.shares()[s], 1) << row;
  }
  EXPECT_EQ(mixture.rows(), (std::vector<int64_t>{30, 15, 5}));
}

TEST(MixtureTest, RestoredRowsGoOnWhereTheyWere) {
  Mixture mixture({2, 1});
  for (int row = 0; row < 5; ++row) mixture.Next();
  Mixture restored({2, 1});
  restored.Restore(mixture.rows());
  for (int row = 0; row < 5; ++row) EXPECT_EQ(restored.Next(), mixture.Next()) << row;
}

}  // namespace
}  // namespace lwm::data
