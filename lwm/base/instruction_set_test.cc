#include "lwm/base/instruction_set.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "lwm/base/error.h"

namespace lwm {
namespace {

constexpr const char* kOneDnn = "ONEDNN_MAX_CPU_ISA";
constexpr const char* kLibTorch = "ATEN_CPU_CAPABILITY";
constexpr const char* kMkl = "MKL_ENABLE_INSTRUCTIONS";

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Keeps the libraries of this process as they are.
class InstructionSetTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {kOneDnn, kLibTorch, kMkl}) {
      before_.push_back(Variable(name));
      unsetenv(name);
    }
  }
  void TearDown() override {
    size_t i = 0;
    for (const char* name : {kOneDnn, kLibTorch, kMkl}) {
      before_[i].empty() ? unsetenv(name) : setenv(name, before_[i].c_str(), 1);
      ++i;
    }
  }

 private:
  std::vector<std::string> before_;
};

TEST_F(InstructionSetTest, NamesAreInTheOrderOfGenerations) {
  EXPECT_EQ(ParseInstructionSet("avx2"), InstructionSet::kAvx2);
  EXPECT_EQ(ParseInstructionSet("avx512"), InstructionSet::kAvx512);
  EXPECT_EQ(ParseInstructionSet("avx512_bf16"), InstructionSet::kAvx512Bf16);
  EXPECT_EQ(ParseInstructionSet("amx"), InstructionSet::kAmx);
  EXPECT_LT(InstructionSet::kAvx2, InstructionSet::kAvx512);
}

TEST_F(InstructionSetTest, OtherNamesAreRefused) {
  try {
    ParseInstructionSet("avx1024");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_STREQ(error.what(), "LWM_MAX_ISA=avx1024: want avx2, avx512, avx512_bf16 or amx");
  }
}

TEST_F(InstructionSetTest, LibrariesAreHeldByTheirOwnNames) {
  HoldLibrariesTo(InstructionSet::kAvx512Bf16);
  EXPECT_EQ(Variable(kOneDnn), "AVX512_CORE_BF16");
  EXPECT_EQ(Variable(kLibTorch), "avx512");
  EXPECT_EQ(Variable(kMkl), "AVX512_E3");
}

TEST_F(InstructionSetTest, NothingIsHeldWhereAllIsAllowed) {
  HoldLibrariesTo(InstructionSet::kAmx);
  for (const char* name : {kOneDnn, kLibTorch, kMkl}) EXPECT_EQ(Variable(name), "");
}

TEST_F(InstructionSetTest, WhatTheUserHasSetForALibraryWins) {
  setenv(kOneDnn, "SSE41", 1);
  HoldLibrariesTo(InstructionSet::kAvx2);
  EXPECT_EQ(Variable(kOneDnn), "SSE41");
  EXPECT_EQ(Variable(kLibTorch), "avx2");
}

}  // namespace
}  // namespace lwm
