#include "lwm/base/folder_lock.h"

#include <gtest/gtest.h>

#include <memory>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm {
namespace {

TEST(FolderLockTest, OneAtATimeHoldsIt) {
  const testing_support::TemporaryFolder folder;
  const std::filesystem::path place = folder / "run";
  std::filesystem::create_directory(place);
  auto first = std::make_unique<FolderLock>(place);
  try {
    const FolderLock second(place);
    ADD_FAILURE() << "two hold it";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_NE(std::string(error.what()).find("is in use"), std::string::npos) << error.what();
  }
  first.reset();
  EXPECT_NO_THROW(FolderLock{place});
}

TEST(FolderLockTest, FolderThatIsNotThereIsNamed) {
  const testing_support::TemporaryFolder folder;
  EXPECT_ERROR(FolderLock{folder / "none"}, kInvalidArgument);
}

}  // namespace
}  // namespace lwm
