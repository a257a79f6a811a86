#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <set>

#include "lwm/base/error.h"
#include "lwm/data/loader.h"
#include "lwm/testing/byte_tokenizer.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/loader_fixture.h"

namespace lwm::data {
namespace {

using testing_support::BytesAsText;

// Lines of a number as caption and four codes, and what a loader gives of them, segment by segment.
class VisionLoaderTest : public LoaderTest {
 protected:
  LoaderConfig Images(const std::string& extra = "") const {
    std::ofstream lines(folder_ / "pictures.jsonl");
    for (int i = 0; i < 60; ++i)
      lines << R"({"caption": "c)" << i << R"(", "vision": [1, 2, 3, )" << i << "]" << extra
            << "}\n";
    LoaderConfig config = Books();
    config.sources = {Source(Folder("pictures.jsonl"))};
    config.sources[0].fields = {"[caption],vision"};
    config.packing.buffer_tokens = 0;
    config.codes_per_frame = 4;
    config.codebook_size = 60;
    return config;
  }
  // The next segments, as many as `count`, "^c7<vision>(1)...".
  static std::vector<std::string> Take(RowLoader& loader, size_t count) {
    std::vector<std::string> segments;
    while (segments.size() < count) {
      const Row row = loader.Next();
      const size_t end = row.token_S.size() - static_cast<size_t>(row.padding);
      for (size_t begin = 0, i = 1; i <= end; ++i)
        if (i == end || row.position_S[i] == 0) {
          segments.push_back(BytesAsText(row.token_S, row.vision_S, begin, i));
          begin = i;
        }
    }
    return segments;
  }
};

TEST_F(VisionLoaderTest, TextBeforeImagesIsDroppedAtTheGivenRateAnewInEveryEpoch) {
  LoaderConfig config = Images();
  config.sources[0].drop_text = 0.25;
  std::map<std::string, int> dropped;  // by the code that names the line
  int all = 0;
  const auto segments = Take(*Open(config), 60 * 40);
  for (const std::string& segment : segments) {
    const bool without = segment.starts_with("^<vision>");
    ASSERT_TRUE(without || segment.starts_with("^c")) << segment;
    all += without;
    dropped[segment.substr(segment.find("(3)"), 7)] += without;
  }
  const auto count = static_cast<double>(segments.size());
  EXPECT_NEAR(all / count, 0.25, 4 * std::sqrt(0.25 * 0.75 / count));
  for (const auto& [line, times] : dropped) EXPECT_LT(times, 30) << line;
  const auto again = Take(*Open(config), 500);
  EXPECT_TRUE(std::equal(again.begin(), again.end(), segments.begin()));
  config.sources[0].fields = {"[caption],[vision],caption"};
  for (const std::string& segment : Take(*Open(config), 200))
    ASSERT_TRUE(segment.starts_with("^c")) << "no image is learned";
}

TEST_F(VisionLoaderTest, AlternativesAreDrawnByLineOrByEpoch) {
  LoaderConfig config = Images();
  config.sources[0].fields = {"[caption],vision", "[vision],caption"};
  const auto orders_of_lines = [&] {
    std::map<std::string, std::set<bool>> orders;
    for (const std::string& segment : Take(*Open(config), 60 * 12))
      orders[segment.substr(segment.find("(3)"), 7)].insert(segment.starts_with("^<vision>"));
    return orders;
  };
  std::set<bool> both;
  for (const auto& [line, orders] : orders_of_lines()) {
    EXPECT_EQ(orders.size(), 1u) << line;
    both.insert(*orders.begin());
  }
  EXPECT_EQ(both.size(), 2u);
  config.sources[0].order_by_visit = true;
  size_t mixed = 0;
  for (const auto& [line, orders] : orders_of_lines()) mixed += orders.size() == 2;
  EXPECT_GE(mixed, 58u);
}

TEST_F(VisionLoaderTest, WeightsSayHowOftenALineComes) {
  LoaderConfig config = Images();
  std::ofstream lines(folder_ / "pictures.jsonl");
  const double weights[] = {0, 0.5, 1, 2.5, 3};
  for (int i = 0; i < 50; ++i)
    lines << R"({"text": "c)" << i << R"(.", "weight": )" << weights[i % 5] << "}\n";
  lines << R"({"text": "c50."})"
        << "\n";  // the default is 1
  lines.close();
  config.sources[0].fields = {};
  config.sources[0].line_weights = true;
  config.held_out_fraction = 0.2;
  const auto loader = Open(config);
  EXPECT_EQ(loader->summary().held_out_units, 10);
  constexpr double kEpochs = 200;
  std::map<std::string, double> seen;
  while (loader->epoch() < kEpochs)
    for (const std::string& segment : Take(*loader, 1)) ++seen[segment];
  std::set<std::string> held_out;
  const auto rows = loader->HeldOut();
  for (const Row& row : ReadAll(*rows))
    for (const std::string& segment : Segments(row)) held_out.insert(segment);
  EXPECT_EQ(held_out.size(), 10u);
  for (int i = 0; i < 51; ++i) {
    const std::string segment = Cat("^c", i, ".$");
    const double weight = i == 50 ? 1 : weights[i % 5];
    const double wanted = held_out.contains(segment) ? 0 : kEpochs * weight;
    const double spread = weight == std::floor(weight) ? 0 : 0.5 * std::sqrt(kEpochs);
    EXPECT_NEAR(seen[segment], wanted, wanted == 0 ? 0 : 4.5 * spread + 4 * weight) << segment;
  }
}

TEST_F(VisionLoaderTest, RunsWithDrawsResumeBitForBit) {
  LoaderConfig config = Images(R"(, "weight": 1.3)");
  config.sources[0].fields = {"[caption],vision", "[vision],caption"};
  config.sources[0].drop_text = 0.4;
  config.sources[0].order_by_visit = true;
  config.sources[0].line_weights = true;
  config.packing.buffer_tokens = 700;
  const auto whole = Open(config);
  std::vector<Row> rows;
  std::vector<Json> states;
  for (int i = 0; i < 40; ++i) {
    states.push_back(whole->SaveState());
    rows.push_back(whole->Next());
  }
  for (const size_t from : {0, 7, 19, 38}) {
    const auto resumed = Open(config);
    resumed->RestoreState(states[from]);
    for (size_t i = from; i < rows.size(); ++i) ExpectSameRow(resumed->Next(), rows[i]);
  }
  config.sources[0].line_weights = false;
  EXPECT_ERROR(Open(config)->RestoreState(states[3]), kInvalidArgument);
}

TEST_F(VisionLoaderTest, BadLinesAreCountedOnceHoweverOftenTheyCome) {
  LoaderConfig config = Images();
  std::ofstream lines(folder_ / "pictures.jsonl", std::ios::app);
  lines << R"({"caption": "too large", "vision": [1, 2, 3, 60]})"
        << "\n";
  lines << R"({"caption": "not four", "vision": [1, 2, 3, 4, 5]})"
        << "\n";
  lines << R"({"caption": "NUL \u0000", "vision": [1, 2, 3, 4]})"
        << "\n";
  lines << R"({"caption": "path", "vision": "a.png"})"
        << "\n";
  lines << R"({"caption": "no vision"})"
        << "\n";
  lines.close();
  config.skip_bad_lines = true;
  config.warn = false;
  const auto loader = Open(config);
  Take(*loader, 60 * 3);
  EXPECT_EQ(loader->skipped(), 5);
  config.skip_bad_lines = false;
  const auto strict = Open(config);
  EXPECT_ERROR(Take(*strict, 60), kCorruptData);
}

}  // namespace
}  // namespace lwm::data
