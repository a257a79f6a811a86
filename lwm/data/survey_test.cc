#include "lwm/data/survey.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/data/jsonl_source.h"
#include "lwm/testing/loader_fixture.h"

namespace lwm::data {
namespace {

class SurveyTest : public LoaderTest {
 protected:
  // Lines of a given question and a learned answer of so many characters, BOS and EOS around them.
  LoaderConfig Questions(const std::vector<int>& lengths, PackingPolicy policy) const {
    std::ofstream lines(folder_ / "questions.jsonl");
    for (const int length : lengths)
      lines << R"({"fields": "[q],a,[end]", "q": ")"
            << std::string(static_cast<size_t>(length), 'q') << R"(", "a": "A", "end": "."})"
            << "\n";
    LoaderConfig config = Lines();
    config.sources = {Source(Folder("questions.jsonl"))};
    config.packing.policy = policy;
    config.packing.row_tokens = 16;
    return config;
  }
  std::string Refusal(const LoaderConfig& config) const {
    try {
      Open(config)->Survey();
      return "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
  }
};

TEST_F(SurveyTest, DataThatFitsNeedsNoWord) {
  EXPECT_TRUE(Open(Lines())->Survey().empty());
  EXPECT_TRUE(Open(Books())->Survey().empty());
}

TEST_F(SurveyTest, LinesLongerThanARowAreCounted) {
  const auto split = Open(Questions({3, 20, 4, 30, 5}, PackingPolicy::kMasked))->Survey();
  ASSERT_EQ(split.size(), 1u);
  EXPECT_EQ(split[0], "2 of 5 lines of " + Folder("questions.jsonl") +
                          " are longer than a row of 16 tokens and are split over rows that do not "
                          "see each other; raise data.row_tokens or shorten them");
  const auto cut = Open(Questions({3, 20, 4, 30, 5}, PackingPolicy::kPad))->Survey();
  ASSERT_EQ(cut.size(), 2u);
  EXPECT_NE(cut[0].find("2 of 5 lines"), std::string::npos) << cut[0];
  EXPECT_NE(cut[0].find("are cut off at its end"), std::string::npos) << cut[0];
  EXPECT_NE(cut[1].find("2 of 5 lines"), std::string::npos) << cut[1];
  EXPECT_NE(cut[1].find("no token to learn"), std::string::npos) << cut[1];
  EXPECT_TRUE(Open(Questions({20}, PackingPolicy::kConcatenate))->Survey().empty());
}

TEST_F(SurveyTest, NothingToLearnIsRefused) {
  const std::string refusal = Refusal(Questions({20, 30}, PackingPolicy::kPad));
  EXPECT_TRUE(refusal.starts_with("none of 2 lines of " + Folder("questions.jsonl") +
                                  " has a token to learn"))
      << refusal;
  EXPECT_NE(refusal.find("2 of 2 lines"), std::string::npos) << refusal;
  LoaderConfig config = Lines();
  config.skip_bad_lines = true;
  config.warn = false;
  std::ofstream(folder_ / "bad.jsonl") << "{\n{\n";
  config.sources = {Source(Folder("bad.jsonl"))};
  EXPECT_NE(Refusal(config).find("none of them is an example"), std::string::npos);
  config = Questions({3}, PackingPolicy::kPad);
  config.held_out_paths = config.sources[0].paths;
  config.sources = {Source(Folder("books"))};
  EXPECT_EQ(Refusal(config), "accepted");
  std::ofstream(folder_ / "questions.jsonl")
      << R"({"fields": "[q]", "q": "long enough to have no EOS in its row"})";
  EXPECT_NE(Refusal(config).find("questions.jsonl has a token to learn"), std::string::npos);
}

// As many lines as a sample has are read of a larger source, and the counts say so.
TEST_F(SurveyTest, LargeSourcesAreSampled) {
  SourceSurvey survey{.name = "a.jsonl", .lines = 50000, .read = 20000, .longer_than_row = 3};
  PackingConfig packing;
  packing.row_tokens = 8;
  EXPECT_TRUE(Describe(survey, packing)[0].starts_with(
      "3 of 20000 lines looked at (of 50000) of a.jsonl are longer than a row of 8 tokens"));
  std::ofstream lines(folder_ / "many.jsonl");
  for (int i = 0; i < 20100; ++i) lines << "{\"text\": \"a\"}\n";
  lines.close();
  const auto source =
      OpenJsonlSource({{folder_ / "many.jsonl", true}}, tokenizer_, JsonlSourceOptions());
  EXPECT_EQ(SurveySource(*source, packing).read, 20000);
}

}  // namespace
}  // namespace lwm::data
