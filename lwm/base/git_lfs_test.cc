#include "lwm/base/git_lfs.h"

#include <gtest/gtest.h>

#include <fstream>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm {
namespace {

using testing_support::TemporaryFolder;

constexpr char kPointer[] =
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 269060552\n";

TEST(GitLfsTest, PointersAreToldFromTextsThatNameThem) {
  EXPECT_TRUE(IsGitLfsPointer(kPointer));
  std::string windows = kPointer;
  windows.replace(windows.find('\n'), 1, "\r\n");
  EXPECT_TRUE(IsGitLfsPointer(windows));
  EXPECT_TRUE(IsGitLfsPointer("version https://hawser.github.com/spec/v1\noid sha256:0\nsize 1\n"));
  EXPECT_FALSE(IsGitLfsPointer(""));
  EXPECT_FALSE(IsGitLfsPointer("version https://git-lfs.github.com/spec/v1 is a first line\n"));
  EXPECT_FALSE(IsGitLfsPointer(std::string("A pointer reads: ") + kPointer));
  EXPECT_FALSE(IsGitLfsPointer(kPointer + std::string(kGitLfsPointerBytes, 'x')));
}

template <class Read>
void ExpectRefused(const Read& read) {
  try {
    read();
    ADD_FAILURE() << "a pointer was read";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    for (const char* part : {"book.txt", "Git LFS pointer", "256.6 MiB", "git lfs pull"})
      EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST(GitLfsTest, EveryWayToReadAFileRefusesAPointer) {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder / "book.txt";
  std::ofstream(file) << kPointer;
  ExpectRefused([&] { RefuseGitLfsPointer(file); });
  ExpectRefused([&] { ReadFile(file); });
  ExpectRefused([&] { ReadFileStart(file, 16); });
  ExpectRefused([&] { const MappedFile mapped(file); });
}

TEST(GitLfsTest, WhatIsNoPointerPasses) {
  const TemporaryFolder folder;
  std::ofstream(folder / "book.txt") << "version 2 of the book";
  RefuseGitLfsPointer(folder / "book.txt");
  RefuseGitLfsPointer(folder / "absent");
}

}  // namespace
}  // namespace lwm
