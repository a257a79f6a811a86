#include "lwm/data/added_tokens.h"

#include <gtest/gtest.h>

namespace lwm::data {
namespace {

// "text|<5>|text": the parts of a text, tokens as their ids.
std::string Parts(const AddedTokenFinder& finder, std::string_view text, bool with_special) {
  std::string line;
  for (const AddedTokenFinder::Part& part : finder.Split(text, with_special)) {
    if (!line.empty()) line += '|';
    line += part.id < 0 ? std::string(part.text) : '<' + std::to_string(part.id) + '>';
  }
  return line;
}

TEST(AddedTokenFinderTest, TheLongestOfThoseThatBeginAtAPlaceIsFound) {
  const AddedTokenFinder finder(
      {{.id = 1, .content = "<a>"}, {.id = 2, .content = "<a><b>"}, {.id = 3, .content = "b>c"}});
  EXPECT_EQ(Parts(finder, "x<a>y", false), "x|<1>|y");
  EXPECT_EQ(Parts(finder, "<a><b>c", false), "<2>|c");
  EXPECT_EQ(Parts(finder, "<b>c<", false), "<|<3>|<");
  EXPECT_EQ(Parts(finder, "", false), "");
}

TEST(AddedTokenFinderTest, SpecialTokensAreTextUnlessAskedFor) {
  const AddedTokenFinder finder(
      {{.id = 1, .content = "<|a|>", .special = true}, {.id = 2, .content = "a"}});
  EXPECT_EQ(Parts(finder, "a<|a|>a", true), "<2>|<1>|<2>");
  EXPECT_EQ(Parts(finder, "a<|a|>a", false), "<2>|<|a|>|<2>");  // nothing inside a special one
  EXPECT_TRUE(finder.has_plain());
}

TEST(AddedTokenFinderTest, WhiteSpaceAroundATokenIsTakenWhereItSaysSo) {
  const AddedTokenFinder finder(
      {{.id = 1, .content = "[L]", .lstrip = true}, {.id = 2, .content = "[R]", .rstrip = true}});
  EXPECT_EQ(Parts(finder, "a \n\u00A0[L] b", false), "a|<1>| b");
  EXPECT_EQ(Parts(finder, "a [R]\u3000\t b", false), "a |<2>|b");
  EXPECT_EQ(Parts(finder, "[R]  [L]", false), "<2>|<1>");  // a taken space is not shared
}

TEST(AddedTokenFinderTest, ASingleWordStandsBetweenOtherCharacters) {
  const AddedTokenFinder finder({{.id = 1, .content = "cafe", .single_word = true}});
  EXPECT_EQ(Parts(finder, "cafe a cafe", false), "<1>| a |<1>");
  EXPECT_EQ(Parts(finder, "(cafe)", false), "(|<1>|)");
  for (const char* text : {"cafes", "acafe", "\u00E9cafe", "cafe_", "cafe\u0301", "9cafe"})
    EXPECT_EQ(Parts(finder, text, false), text);
}

TEST(AddedTokenFinderTest, NormalizedTokensAreLookedForLast) {
  const AddedTokenFinder finder({{.id = 1, .content = "ab", .normalized = true},
                                 {.id = 2, .content = "bc", .normalized = false}});
  EXPECT_EQ(Parts(finder, "abc ab", false), "a|<2>| |<1>");
}

}  // namespace
}  // namespace lwm::data
