#include "lwm/io/pickle.h"

#include <gtest/gtest.h>

#include "lwm/testing/damage.h"

namespace lwm::io {
namespace {

using namespace std::string_literals;
using testing_support::RefusalOf;
using Kind = PickleValue::Kind;

bool AllowOnlyF(std::string_view module, std::string_view name) {
  return module == "m" && name == "f";
}

Pickle Read(const std::string& text) {
  return Pickle(std::as_bytes(std::span(text.data(), text.size())), "x.pkl", AllowOnlyF);
}

std::string Refusal(const std::string& text) {
  return RefusalOf(text, [](std::span<const std::byte> bytes) {
    const Pickle pickle(bytes, "x.pkl", AllowOnlyF);
  });
}

TEST(PickleTest, NumbersOfEveryWidthAreRead) {
  const std::pair<std::string, int64_t> cases[] = {
      {"K\xff"s, 255},
      {"M\xff\xff"s, 65535},
      {"J\xff\xff\xff\xff"s, -1},
      {"\x8a\x00"s, 0},
      {"\x8a\x01\xff"s, -1},
      {"\x8a\x02\x00\x80"s, -32768},
      {"\x8a\x05\x00\x00\x00\x00\x01"s, int64_t{1} << 32},
      {"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80"s, INT64_MIN},
  };
  for (const auto& [code, value] : cases) {
    const std::string text = "\x80\x02"s + code + "."s;
    const Pickle pickle = Read(text);
    EXPECT_EQ(pickle.Integer(pickle.root()), value);
  }
  const std::string text = "\x80\x02G\x40\x09\x21\xfb\x54\x44\x2d\x18."s;
  const Pickle pickle = Read(text);
  EXPECT_DOUBLE_EQ(pickle[pickle.root()].number, 3.141592653589793);
}

TEST(PickleTest, ContainersAndMemoKeepTheirOrder) {
  // {"a": (1, 2), "b": [3], "c": the tuple again}
  const std::string text =
      "\x80\x02}("
      "\x8c\x01"
      "aK\x01K\x02\x86q\x00"
      "\x8c\x01"
      "b]K\x03"
      "a"
      "\x8c\x01"
      "ch\x00u."s;
  const Pickle pickle = Read(text);
  const auto entries = pickle.Entries(pickle.root());
  ASSERT_EQ(entries.size(), 6u);
  EXPECT_EQ(pickle.Text(entries[0]), "a");
  EXPECT_EQ(pickle.Integers(entries[1]), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(pickle.Integers(entries[3]), (std::vector<int64_t>{3}));
  EXPECT_EQ(entries[1], entries[5]);
}

TEST(PickleTest, CallsBecomeValuesWithArgumentsStateAndItems) {
  const std::string text =
      "\x80\x02"
      "cm\nf\nK\x05\x85RK\x07"
      "b\x8c\x01kK\x01s."s;
  const Pickle pickle = Read(text);
  const auto arguments = pickle.CallOf(pickle.root(), "m", "f", 1);
  ASSERT_EQ(arguments.size(), 1u);
  EXPECT_EQ(pickle.Integer(arguments[0]), 5);
  EXPECT_EQ(pickle.Integer(pickle[pickle.root()].state), 7);
  EXPECT_EQ(pickle.Entries(pickle.root()).size(), 2u);
}

TEST(PickleTest, GlobalsOutsideTheListAreRefusedByName) {
  EXPECT_NE(Refusal("\x80\x02"
                    "cos\nsystem\n."s)
                .find("os.system"),
            std::string::npos);
  EXPECT_NE(Refusal("\x80\x04\x8c\x08"
                    "builtins\x8c\x04"
                    "eval\x93."s)
                .find("builtins.eval"),
            std::string::npos);
  EXPECT_NE(Refusal("\x80\x02"
                    "cm\ng\n."s)
                .find("m.g"),
            std::string::npos);
}

TEST(PickleTest, OtherOpcodesAreRefusedByNumber) {
  const std::string allowed =
      "(.0NJKMGXBC)]}taesucRbhjqrQ\x80\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8e\x93\x94\x95\x96";
  for (int op = 0; op < 256; ++op) {
    if (allowed.find(static_cast<char>(op)) != std::string::npos) continue;
    const std::string text = "\x80\x02N"s + static_cast<char>(op) + "\x00\x00\x00\x00."s;
    EXPECT_NE(Refusal(text).find(Cat("opcode ", op, " ")), std::string::npos) << op;
  }
}

TEST(PickleTest, MisuseOfTheStackIsRefused) {
  for (const char* code : {".",
                           "0.",
                           "\x85.",
                           "\x87.",
                           "t.",
                           "u.",
                           "e.",
                           "s.",
                           "R.",
                           "b.",
                           "a.",
                           "}K\x01s.",
                           "K\x01K\x02\x86K\x03"
                           "a.",
                           "NN\x86R.",
                           "(.",
                           "N(0.",
                           "h\x00.",
                           "Nq\x05.",
                           "K\x01K\x02R.",
                           "}(K\x01u."})
    EXPECT_NE(Refusal("\x80\x02"s + std::string(code, code[0] == 'h' ? 3 : strlen(code))), "")
        << code;
  EXPECT_NE(Refusal("\x80\x01N."s).find("protocol 1"), std::string::npos);
  EXPECT_NE(Refusal("N."s).find("not a pickle"), std::string::npos);
}

TEST(PickleTest, LengthsBeyondTheFileAreRefused) {
  EXPECT_NE(Refusal("\x80\x02X\xff\xff\xff\xff."s).find("truncated"), std::string::npos);
  EXPECT_NE(Refusal("\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff."s).find("truncated"),
            std::string::npos);
  EXPECT_NE(Refusal("\x80\x02r\xff\xff\xff\xff."s), "");
  EXPECT_NE(Refusal("\x80\x02Nr\xff\xff\xff\xff."s).find("out of order"), std::string::npos);
}

TEST(PickleTest, MillionsOfValuesAreRefused) {
  EXPECT_NE(Refusal("\x80\x02"s + std::string(1'000'001, 'N') + "."s).find("too many values"),
            std::string::npos);
}

}  // namespace
}  // namespace lwm::io
