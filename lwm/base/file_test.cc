#include "lwm/base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <thread>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm {
namespace {
namespace fs = std::filesystem;

class FileTest : public ::testing::Test {
 protected:
  size_t Entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }

  testing_support::TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
};

ErrorCode CodeOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "expected an Error";
  return ErrorCode::kInternal;
}

TEST_F(FileTest, AtomicWriteReplacesTheContentAndLeavesNothingElse) {
  WriteFileAtomically(folder_ / "a", "old");
  WriteFileAtomically(folder_ / "a", std::string("new\0bytes", 9));
  EXPECT_EQ(ReadFile(folder_ / "a"), std::string("new\0bytes", 9));
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(FileTest, MissingFileIsNotFoundAndNamed) {
  EXPECT_EQ(CodeOf([&] { ReadFile(folder_ / "absent"); }), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf([&] { ReadFile(folder_); }), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf([&] { MappedFile file(folder_ / "absent"); }), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf([&] { MappedFile file(folder_); }), ErrorCode::kNotFound);
}

std::string MessageOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

// The rights of another user as long as it lives; root reads everything.
class WithoutRootRights {
 public:
  WithoutRootRights() {
    if (getuid() == 0 && seteuid(65534) != 0) ADD_FAILURE() << "cannot become another user";
  }
  ~WithoutRootRights() {
    if (getuid() == 0 && seteuid(0) != 0) ADD_FAILURE() << "cannot become root again";
  }
};

TEST_F(FileTest, PermissionDeniedIsTheReasonWhicheverWayAFileIsRead) {
  const fs::path file = folder_ / "locked", inner = folder_ / "folder" / "file";
  fs::permissions(folder_, fs::perms(0755));
  WriteFileAtomically(file, "text");
  fs::permissions(file, fs::perms::none);
  fs::create_directory(folder_ / "folder");
  fs::permissions(folder_ / "folder", fs::perms::none);
  {
    const WithoutRootRights other_user;
    for (const fs::path& path : {file, inner}) {
      for (const std::function<void()>& read : std::vector<std::function<void()>>{
               [&] { ReadFile(path); }, [&] { ReadFileStart(path, 8); },
               [&] { MappedFile mapped(path); }}) {
        EXPECT_EQ(CodeOf(read), ErrorCode::kNotFound);
        const std::string message = MessageOf(read);
        EXPECT_NE(message.find(path.string() + ": Permission denied"), std::string::npos)
            << message;
      }
    }
    try {
      EXPECT_FALSE(fs::exists(inner));
      ADD_FAILURE() << "the folder can be entered";
    } catch (const fs::filesystem_error& error) {
      EXPECT_EQ(ExplainFileError(error), "cannot open " + inner.string() + ": Permission denied");
    }
  }
  fs::permissions(folder_ / "folder", fs::perms::all);
}

TEST_F(FileTest, StartOfAFileIsCutOrWhole) {
  WriteFileAtomically(folder_ / "a", std::string(3000, 'x') + "end");
  EXPECT_EQ(ReadFileStart(folder_ / "a", 5), "xxxxx");
  EXPECT_EQ(ReadFileStart(folder_ / "a", 2000), std::string(2000, 'x'));
  EXPECT_EQ(ReadFileStart(folder_ / "a", 99999).size(), 3003u);
  EXPECT_EQ(CodeOf([&] { ReadFileStart(folder_, 5); }), ErrorCode::kNotFound);
}

TEST_F(FileTest, WhatIsNoFileOnADiskIsSaidToBeSo) {
  EXPECT_EQ(MessageOf([] { MappedFile file("/dev/null"); }),
            "cannot read /dev/null: a pipe or device; want a file on a disk");
  EXPECT_EQ(MessageOf([&] { MappedFile file(folder_); }),
            "cannot read " + folder_.string() + ": Is a directory");
}

TEST_F(FileTest, NamedPipeWithoutAWriterIsRefusedAtOnce) {
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(CodeOf([&] { MappedFile file(pipe); }), ErrorCode::kNotFound);
}

TEST_F(FileTest, FoldersExchangeTheirNames) {
  for (const char* name : {"a", "b"}) {
    fs::create_directory(folder_ / name);
    WriteFileAtomically(folder_ / name / "inside", name);
  }
  const bool exchanged = ExchangeAndSync(folder_ / "a", folder_ / "b");
  if (!exchanged && (errno == EINVAL || errno == ENOSYS))
    GTEST_SKIP() << "this file system cannot exchange names";
  ASSERT_TRUE(exchanged);
  EXPECT_EQ(ReadFile(folder_ / "a" / "inside"), "b");
  EXPECT_EQ(ReadFile(folder_ / "b" / "inside"), "a");
  EXPECT_FALSE(ExchangeAndSync(folder_ / "a", folder_ / "absent"));
  EXPECT_EQ(ReadFile(folder_ / "a" / "inside"), "b");
}

TEST_F(FileTest, ReadThatFailsHalfWayNamesTheFile) {
  EXPECT_EQ(MessageOf([] { ReadFile("/proc/self/mem"); }),
            "cannot read all of /proc/self/mem: Input/output error");
}

TEST_F(FileTest, FilesOfAnySizeAreReadWhole) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{65536}, size_t{65537}, size_t{200000}}) {
    std::string content(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) content[i] = static_cast<char>(i * 31);
    WriteFileAtomically(folder_ / "a", content);
    EXPECT_TRUE(ReadFile(folder_ / "a") == content) << bytes;
  }
}

TEST_F(FileTest, FoldersThatCannotTakeFilesAreNamedBeforeTheWork) {
  EXPECT_NO_THROW(RequireWritableFolder(folder_));
  EXPECT_NO_THROW(RequireWritableFolder(""));
  WriteFileAtomically(folder_ / "file", "");
  EXPECT_EQ(MessageOf([&] { RequireWritableFolder(folder_ / "no"); }),
            "cannot write into " + (folder_ / "no").string() + ": No such file or directory");
  EXPECT_EQ(CodeOf([&] { RequireWritableFolder(folder_ / "file"); }), ErrorCode::kInvalidArgument);
}

TEST_F(FileTest, WriteIntoAnAbsentFolderIsTheCallersError) {
  EXPECT_EQ(CodeOf([&] { WriteFileAtomically(folder_ / "no" / "a", "x"); }),
            ErrorCode::kInvalidArgument);
}

TEST_F(FileTest, FullDiskIsReportedAsExhausted) {
  EXPECT_EQ(CodeOf([&] {
              OutputFile file("/dev/full");
              file.Write("x");
              file.Finish();
            }),
            ErrorCode::kResourceExhausted);
}

TEST_F(FileTest, ManyMayWriteTheSameFileAtOnce) {
  std::atomic<int> failed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int j = 0; j < 20; ++j) try {
          WriteFileAtomically(folder_ / "shared", "the same");
        } catch (const Error&) {
          ++failed;
        }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(ReadFile(folder_ / "shared"), "the same");
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(FileTest, TemporaryNamesAreHiddenBesideTheirFileAndNeverTheSame) {
  const fs::path first = TemporaryBeside(folder_ / "a.txt", ".mp4");
  EXPECT_EQ(first.parent_path(), folder_);
  EXPECT_TRUE(first.filename().string().starts_with(".a.txt.")) << first;
  EXPECT_EQ(first.extension(), ".mp4");
  EXPECT_NE(first, TemporaryBeside(folder_ / "a.txt", ".mp4"));
  EXPECT_FALSE(TemporaryBeside("a").has_parent_path());
}

TEST_F(FileTest, FolderAppearsWholeOrNotAtAll) {
  WriteFolderAtomically(folder_ / "done",
                        [](const fs::path& place) { WriteFileAtomically(place / "inside", "1"); });
  EXPECT_EQ(ReadFile(folder_ / "done" / "inside"), "1");
  fs::remove_all(folder_ / "done");
  WriteFolderAtomically(folder_ / "done/",  // as shells complete names
                        [](const fs::path& place) { WriteFileAtomically(place / "inside", "2"); });
  EXPECT_EQ(ReadFile(folder_ / "done" / "inside"), "2");
  EXPECT_ERROR(WriteFolderAtomically(folder_ / "failed",
                                     [](const fs::path& place) {
                                       WriteFileAtomically(place / "inside", "1");
                                       throw Error(ErrorCode::kInternal, "half way");
                                     }),
               kInternal);
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(FileTest, MapShowsTheBytesAndAnEmptyFileIsEmpty) {
  WriteFileAtomically(folder_ / "a", "abc");
  WriteFileAtomically(folder_ / "empty", "");
  const MappedFile file(folder_ / "a");
  ASSERT_EQ(file.bytes().size(), 3u);
  EXPECT_EQ(static_cast<char>(file.bytes()[2]), 'c');
  file.Forget(0, 3);
  EXPECT_TRUE(MappedFile(folder_ / "empty").bytes().empty());
}

TEST_F(FileTest, HashIsXxh3OfTheBytes) {
  EXPECT_EQ(HashHex({}), "2d06800538d394c2");  // XXH3_64bits of no bytes, from its specification
}

}  // namespace
}  // namespace lwm
