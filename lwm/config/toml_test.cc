#include "lwm/config/toml.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"

namespace lwm::config {
namespace {

TEST(TomlTest, TablesArraysAndScalarsBecomeJsonWithTheirLines) {
  const TomlDocument document =
      ParseToml("[train]\nsteps = 10\nname = \"a\\\"b\"\n\n[data]\nx = [1, 2.5]\non = true\n", "r");
  EXPECT_EQ(document.values.at("train").at("steps"), 10);
  EXPECT_EQ(document.values.at("train").at("name"), "a\"b");
  EXPECT_EQ(document.values.at("data").at("x"), Json::parse("[1, 2.5]"));
  EXPECT_EQ(document.values.at("data").at("on"), true);
  EXPECT_EQ(document.line_of.at("train.name"), 3);
  EXPECT_EQ(document.line_of.at("data.on"), 7);
}

TEST(TomlTest, SyntaxErrorNamesFileAndLine) {
  try {
    ParseToml("[train]\nsteps = = 3\n", "recipe.toml");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(std::string(error.what()).rfind("recipe.toml:2: ", 0), 0u) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
}

TEST(TomlTest, ValueTextIsTomlOrElseABareString) {
  EXPECT_EQ(ParseTomlValue("3"), 3);
  EXPECT_EQ(ParseTomlValue("3e-4"), 3e-4);
  EXPECT_EQ(ParseTomlValue("true"), true);
  EXPECT_EQ(ParseTomlValue("[\"a\", \"b\"]"), Json::parse(R"(["a", "b"])"));
  EXPECT_EQ(ParseTomlValue("runs/a"), "runs/a");
  EXPECT_EQ(ParseTomlValue("1,1,1,2"), "1,1,1,2");
  EXPECT_EQ(ParseTomlValue(""), "");
  EXPECT_EQ(ParseTomlValue("1\nother = 2"), "1\nother = 2");
}

TEST(TomlTest, FormattedValueReadsBackTheSame) {
  for (const Json& value : {Json(7), Json(0.25), Json(false), Json("tab\t\"quoted\" \\ end"),
                            Json::parse(R"(["a", "b\n"])"), Json::parse("[1.5, 2.0]")})
    EXPECT_EQ(ParseTomlValue(FormatTomlValue(value)), value) << value;
}

}  // namespace
}  // namespace lwm::config
