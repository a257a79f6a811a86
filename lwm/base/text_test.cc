#include "lwm/base/text.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/base/process.h"
#include "lwm/base/random.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/message_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm {
namespace {

TEST(TextTest, ControlCharactersBecomeQuestionMarks) {
  EXPECT_EQ(WithoutControls(std::string("a\n\x1b[2J\0\x7f \xC3\xA9", 11)), "a??[2J?? \xC3\xA9");
}

TEST(TextTest, NearestNameFindsTyposAndRefusesStrangers) {
  EXPECT_EQ(NearestName("lerning_rate", {"learning_rate", "weight_decay"}), "learning_rate");
  EXPECT_EQ(NearestName("trian", {"train", "chat"}), "train");
  EXPECT_EQ(NearestName("zzzzzz", {"train", "chat"}), "");
}

TEST(TextTest, SizesAndTimesReadNaturally) {
  EXPECT_EQ(FormatBytes(17), "17 B");
  EXPECT_EQ(FormatBytes(1536.0 * 1024 * 1024), "1.5 GiB");
  EXPECT_EQ(FormatDuration(45.2), "45 s");
  EXPECT_EQ(FormatDuration(200), "3 min 20 s");
  EXPECT_EQ(FormatDuration(2 * 3600 + 5 * 60), "2 h 05 min");
}

TEST(JsonTest, SyntaxErrorNamesTheSource) {
  try {
    ParseJson("{\"a\": ", "x.json");
    FAIL() << "expected Error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    EXPECT_NE(std::string(error.what()).find("x.json"), std::string::npos);
  }
}

TEST(JsonTest, DeepNestingIsRefused) {
  EXPECT_THROW(ParseJson(std::string(100000, '['), "x"), Error);
}

TEST(JsonTest, FieldsOfTheWrongTypeAreNamed) {
  const Json json = ParseJson(R"({"a": "text", "b": 3, "n": null})", "x");
  EXPECT_EQ(JsonGet<int>(json, "b", "x"), 3);
  EXPECT_EQ(JsonGet<int>(json, "n", "x", 5), 5);
  EXPECT_ERROR(JsonGet<int>(json, "a", "x"), kCorruptData);
  EXPECT_ERROR(JsonGet<int>(json, "absent", "x"), kCorruptData);
}

TEST(RandomTest, StreamsAreReproducibleAndUniform) {
  Random a(1), b(1), other(DeriveKey(1, 7));
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double u = a.Uniform();
    EXPECT_EQ(u, b.Uniform());
    EXPECT_NE(u, other.Uniform());
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.01);
  Random resumed(1, a.counter());
  EXPECT_EQ(resumed.Next(), a.Next());
}

TEST(RandomTest, BelowStaysBelow) {
  Random random(3);
  std::vector<int> seen(7);
  for (int i = 0; i < 7000; ++i) ++seen.at(random.Below(7));
  for (const int count : seen) EXPECT_NEAR(count, 1000, 150);
}

TEST(ProcessTest, MemoryFiguresAreOfThisProcess) {
  const int64_t before = PeakMemoryBytes();
  std::vector<char> block(64 << 20, 1);
  EXPECT_GE(PeakMemoryBytes(), before + (int64_t{32} << 20));
  EXPECT_GT(AvailableMemoryBytes(), 0);
  EXPECT_GE(AllowedCores(), 1);
}

TEST(ProcessTest, MemoryThatIsNotThereIsRefusedWithBothNumbers) {
  RequireMemory(1 << 20, "a megabyte");
  const std::string message = testing_support::MessageOf(
      [] { RequireMemory(1e18, "the weights", "use fewer"); }, ErrorCode::kResourceExhausted);
  EXPECT_EQ(message.find("the weights need 888.2 PiB of memory, "), 0u) << message;
  EXPECT_NE(message.find(" are left; use fewer"), std::string::npos) << message;
}

TEST(ProcessTest, FilesInMemoryDoNotCountAgainstTheControlGroup) {
  const testing_support::TemporaryFolder group;
  EXPECT_GT(AvailableMemoryBytes(group.path()), 5000);  // no limit
  WriteFileAtomically(group / "memory.max", "10000\n");
  WriteFileAtomically(group / "memory.current", "9500\n");
  EXPECT_EQ(AvailableMemoryBytes(group.path()), 500);
  WriteFileAtomically(group / "memory.stat",
                      "anon 2000\nfile 7500\ninactive_file 4000\nactive_file 3000\n");
  EXPECT_EQ(AvailableMemoryBytes(group.path()), 7500);
  WriteFileAtomically(group / "memory.max", "max\n");
  EXPECT_GT(AvailableMemoryBytes(group.path()), 10000);
}

}  // namespace
}  // namespace lwm
