#include "lwm/data/survey.h"

#include <algorithm>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/data/unit_order.h"

namespace lwm::data {
namespace {

constexpr int64_t kMaxLines = 20000;
constexpr int64_t kMaxTokens = int64_t{1} << 22;
constexpr uint64_t kSampleKey = 1;

std::string ShareOf(int64_t count, const SourceSurvey& survey) {
  const std::string share = Cat(count, " of ", CountOf(survey.read, "line"));
  if (survey.read == survey.lines) return Cat(share, " of ", survey.name);
  return Cat(share, " looked at (of ", survey.lines, ") of ", survey.name);
}

}  // namespace

SourceSurvey SurveySource(const ExampleSource& source, const PackingConfig& packing) {
  SourceSurvey survey;
  survey.name = source.name();
  survey.has_documents = source.pieces() > 0;
  survey.lines = source.units() - source.pieces();
  if (survey.lines == 0) return survey;
  const Permutation order(kSampleKey, survey.lines);
  for (int64_t tokens = 0; survey.read < std::min(survey.lines, kMaxLines) && tokens < kMaxTokens;
       ++survey.read) {
    const int64_t unit = source.pieces() + order.At(survey.read);
    const Example example = source.Weight(unit) > 0 ? source.Read(unit, 0) : Example();
    const auto size = static_cast<int64_t>(example.token_n.size());
    tokens += size;
    survey.skipped += size == 0;
    survey.longer_than_row += size > packing.row_tokens;
    survey.without_target += size > 0 && !HasTarget(example, packing);
  }
  return survey;
}

std::vector<std::string> Describe(const SourceSurvey& survey, const PackingConfig& packing) {
  std::vector<std::string> lines;
  const bool is_pad = packing.policy == PackingPolicy::kPad;
  const std::string longer =
      Cat(ShareOf(survey.longer_than_row, survey), " are longer than a row of ", packing.row_tokens,
          " tokens and are ",
          is_pad ? "cut off at its end" : "split over rows that do not see each other",
          "; raise data.row_tokens or shorten them");
  const bool is_joined = packing.policy == PackingPolicy::kConcatenate;  // all of it is cut anyhow
  if (survey.longer_than_row > 0 && !is_joined) lines.push_back(longer);
  const int64_t examples = survey.read - survey.skipped;
  const bool learns = survey.has_documents || survey.lines == 0 || survey.without_target < examples;
  LWM_REQUIRE(learns, "none of ", survey.read, " lines of ", survey.name, " has a token to learn: ",
              survey.skipped == survey.read ? "none of them is an example"
                                            : "all that they hold is given ([...] in \"fields\"), "
                                              "or lies behind the end of its row",
              survey.longer_than_row > 0 ? "; " + longer : "");
  if (survey.without_target > 0)
    lines.push_back(Cat(ShareOf(survey.without_target, survey),
                        " have no token to learn: all that they hold is given, or lies behind the "
                        "end of its row"));
  return lines;
}

}  // namespace lwm::data
