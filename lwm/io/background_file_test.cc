#include "lwm/io/background_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "lwm/base/error.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {

using testing_support::TemporaryFolder;

TEST(BackgroundFileTest, BytesArriveInOrderWhateverThePieces) {
  const TemporaryFolder folder;
  for (const size_t total : {size_t{0}, size_t{10}, size_t{1} << 20, (size_t{9} << 20) + 7}) {
    std::string expected(total, '\0');
    for (size_t i = 0; i < total; ++i) expected[i] = static_cast<char>(i * 7 + i / 1000);
    BackgroundFile file(folder / "a");
    for (size_t at = 0, piece = 1; at < total; at += piece, piece = piece * 3 + 1) {
      piece = std::min(piece, total - at);
      file.Write(expected.data() + at, piece);
      EXPECT_EQ(file.position(), at + piece);
    }
    file.Finish();
    EXPECT_TRUE(ReadFile(folder / "a") == expected) << total;
  }
}

TEST(BackgroundFileTest, UnfinishedFileEndsItsThread) {
  const TemporaryFolder folder;
  BackgroundFile file(folder / "a");
  file.Write(std::string(5 << 20, 'x'));
}

TEST(BackgroundFileTest, FullDiskIsReportedAtTheLatestByFinish) {
  const auto write = [](size_t bytes) {
    BackgroundFile file("/dev/full");
    file.Write(std::string(bytes, 'x'));
    file.Finish();
  };
  for (const size_t bytes : {size_t{10}, size_t{20} << 20}) {
    try {
      write(bytes);
      FAIL() << bytes;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted) << error.what();
    }
  }
}

}  // namespace
}  // namespace lwm::io
