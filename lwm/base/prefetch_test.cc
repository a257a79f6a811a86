#include "lwm/base/prefetch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <vector>

namespace lwm {
namespace {

TEST(PrefetchTest, ResultsComeInOrderThenNothing) {
  int made = 0;
  Prefetch<std::unique_ptr<int>> results(
      [&]() -> std::optional<std::unique_ptr<int>> {
        if (made == 100) return {};
        return std::make_unique<int>(made++);
      },
      3);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(**results.Next(), i);
  EXPECT_FALSE(results.Next());
  EXPECT_FALSE(results.Next());
}

TEST(PrefetchTest, NoMoreIsMadeAheadThanAllowed) {
  std::atomic<int> made = 0, taken = 0, most = 0;
  Prefetch<int> results(
      [&]() -> std::optional<int> {
        most = std::max(most.load(), made - taken);
        return made < 50 ? std::optional(made++) : std::nullopt;
      },
      2);
  while (results.Next()) ++taken;
  EXPECT_EQ(taken, 50);
  EXPECT_LE(most, 3);  // two waiting, one between Next and ++taken
}

TEST(PrefetchTest, ErrorsComeAfterTheResultsBeforeThem) {
  int made = 0;
  Prefetch<int> results(
      [&]() -> std::optional<int> {
        if (made == 2) throw std::runtime_error("third");
        return made++;
      },
      5);
  EXPECT_EQ(results.Next(), 0);
  EXPECT_EQ(results.Next(), 1);
  EXPECT_THROW(results.Next(), std::runtime_error);
}

TEST(PrefetchTest, AtLeastOneResultIsMadeAhead) {
  Prefetch<int> results([]() -> std::optional<int> { return 7; }, 0);
  EXPECT_EQ(results.Next(), 7);
}

TEST(PrefetchTest, MayBeDroppedBeforeTheEnd) {
  std::atomic<int> made = 0;
  {
    Prefetch<int> results([&]() -> std::optional<int> { return ++made; }, 4);
    EXPECT_EQ(results.Next(), 1);
  }
  EXPECT_LE(made, 6);
}

}  // namespace
}  // namespace lwm
