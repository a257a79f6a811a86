#include "lwm/jinja/text.h"

#include <gtest/gtest.h>

namespace lwm::jinja {
namespace {

TEST(TextTest, PartsKeepTheirMarks) {
  Text text("own");
  text.Append("foreign", true);
  text.Append(Text("!"));
  const Text part = text.Part(2, 5);
  EXPECT_EQ(part.bytes(), "nfo");
  EXPECT_EQ(part.foreign(), std::string("\0\1\1", 3));
  EXPECT_EQ(text.foreign().size(), text.size());
}

TEST(TextTest, CharactersAreCodePointsAndStrayBytesStandAlone) {
  EXPECT_EQ(CharacterStarts("a\u00E9\u20AC\U0001F600"), (std::vector<size_t>{0, 1, 3, 6, 10}));
  EXPECT_EQ(CharacterStarts("\xFF\xC3"), (std::vector<size_t>{0, 1, 2}));
  for (const char32_t code : {U'a', U'\u00E9', U'\u20AC', U'\U0001F600'})
    EXPECT_EQ(CharacterAt(Utf8Of(code), 0).code, code);
}

TEST(TextTest, StripTakesWhiteSpaceOrTheGivenCharacters) {
  EXPECT_EQ(Strip(Text(" \t\n\u00A0a b\u3000"), true, true).bytes(), "a b");
  const std::string characters = "x\u00E9";
  EXPECT_EQ(Strip(Text("x\u00E9axb\u00E9"), true, false, &characters).bytes(), "axb\u00E9");
  EXPECT_EQ(Strip(Text("   "), true, true).bytes(), "");
}

TEST(TextTest, CaseChangesAsInPythonOrIsRefused) {
  EXPECT_EQ(ChangeCase(Text("it's \u00E9x 2nd"), Case::kTitle).bytes(), "It'S \u00C9x 2Nd");
  EXPECT_EQ(ChangeCase(Text("aBC"), Case::kCapitalize).bytes(), "Abc");
  EXPECT_EQ(ChangeCase(Text("\u00E9", true), Case::kUpper).foreign(), "\1\1");
  for (const char* special : {"\u00DF", "\u03A3", "\u0130", "\uFB01"})
    EXPECT_THROW(ChangeCase(Text(special), Case::kLower), Failure) << special;
}

}  // namespace
}  // namespace lwm::jinja
