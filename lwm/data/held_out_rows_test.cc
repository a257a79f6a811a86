#include "lwm/data/held_out_rows.h"

#include <gtest/gtest.h>

namespace lwm::data {
namespace {

constexpr int64_t kRowTokens = 4;

// Unit u is an example of the token u, twice.
class Numbers : public ExampleSource {
 public:
  int64_t units() const override { return 100; }
  int64_t files() const override { return 1; }
  int64_t tokens() const override { return 200; }
  Example Read(int64_t unit, int64_t epoch) const override {
    EXPECT_EQ(epoch, kHeldOut);
    const auto token = static_cast<int32_t>(unit);
    Example example;
    example.token_n = {token, token};
    example.vision_n = {0, 0};
    example.loss_weight_n = {0, 1};
    return example;
  }
  std::string fingerprint() const override { return ""; }
  std::string name() const override { return "numbers"; }
};

// The first token of each row.
std::vector<int32_t> FirstTokens(const std::vector<HeldOutPart>& parts) {
  PackingConfig packing;
  packing.row_tokens = kRowTokens;
  packing.policy = PackingPolicy::kPad;
  HeldOutRows rows(parts, packing);
  std::vector<int32_t> first;
  while (const auto row = rows.Next()) first.push_back(row->token_S[0]);
  EXPECT_FALSE(rows.Next());
  return first;
}

TEST(HeldOutRowsTest, UnitsOfAllSourcesComeInOrder) {
  const auto source = std::make_shared<Numbers>();
  EXPECT_EQ(FirstTokens({{source, {7, 3}}, {source, {5}}}), (std::vector<int32_t>{7, 3, 5}));
  EXPECT_TRUE(FirstTokens({}).empty());
}

}  // namespace
}  // namespace lwm::data
