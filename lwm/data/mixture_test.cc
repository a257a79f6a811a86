#include "lwm/data/mixture.h"

#include <gtest/gtest.h>

namespace lwm::data {
namespace {

TEST(MixtureTest, SourcesKeepToTheirSharesAfterEveryRow) {
  Mixture mixture({6, 3, 1}, 0, 1);
  EXPECT_EQ(mixture.shares(), (std::vector<double>{0.6, 0.3, 0.1}));
  for (int row = 1; row <= 50; ++row) {
    mixture.Next();
    for (size_t s = 0; s < 3; ++s)
      EXPECT_NEAR(static_cast<double>(mixture.rows()[s]), row * mixture.shares()[s], 1) << row;
  }
  EXPECT_EQ(mixture.rows(), (std::vector<int64_t>{30, 15, 5}));
}

TEST(MixtureTest, GroupsTogetherTakeTheRowsOfOne) {
  Mixture one({2, 1}, 0, 1);
  std::vector<Mixture> groups;
  for (int rank = 0; rank < 3; ++rank) groups.emplace_back(std::vector<double>{2, 1}, rank, 3);
  for (int step = 0; step < 7; ++step)
    for (Mixture& group : groups) EXPECT_EQ(group.Next(), one.Next()) << step;
  for (const Mixture& group : groups) EXPECT_EQ(group.rows(), one.rows());
}

TEST(MixtureTest, RestoredRowsGoOnWhereTheyWere) {
  Mixture mixture({2, 1}, 0, 1);
  for (int row = 0; row < 5; ++row) mixture.Next();
  Mixture restored({2, 1}, 0, 1);
  restored.Restore(mixture.rows());
  for (int row = 0; row < 5; ++row) EXPECT_EQ(restored.Next(), mixture.Next()) << row;
}

}  // namespace
}  // namespace lwm::data
