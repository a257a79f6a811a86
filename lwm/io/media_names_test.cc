#include "lwm/io/media_names.h"

#include <gtest/gtest.h>

#include "lwm/testing/golden_folder.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

TEST(MediaNamesTest, ExtensionsOfAnyCaseAreKnown) {
  EXPECT_TRUE(IsVideoName("a.MP4"));
  EXPECT_TRUE(IsImageName("b.Jpeg"));
  EXPECT_FALSE(IsVideoName("a.png"));
  EXPECT_FALSE(IsImageName("a"));
}

TEST(MediaNamesTest, ContentDecidesWhereTheNameSaysNothing) {
  const testing_support::TemporaryFolder folder;
  const fs::path media = testing_support::GoldenFolder("media");
  for (const char* name : {"plain.jpg", "turned.png", "turned.tiff", "plain.webp", "plain.bmp",
                           "plain.ppm", "plain.jp2"}) {
    fs::copy_file(media / name, folder / "x", fs::copy_options::overwrite_existing);
    EXPECT_FALSE(IsVideoFile(folder / "x")) << name;
  }
  for (const char* name : {"whole.mkv", "song.mp4", "plain.gif", "whole.ts"}) {
    fs::copy_file(media / name, folder / "x", fs::copy_options::overwrite_existing);
    EXPECT_TRUE(IsVideoFile(folder / "x")) << name;
  }
  EXPECT_FALSE(IsVideoFile(folder / "none"));
}

}  // namespace
}  // namespace lwm::io
