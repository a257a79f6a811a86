#include "lwm/vision_train/images.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/image_file.h"
#include "lwm/io/mp4_writer.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::vision_train {
namespace {
namespace fs = std::filesystem;
using testing_support::TemporaryFolder;

io::RgbImage Plain(int64_t width, int64_t height, uint8_t value) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3), value)};
}

// Files 00.png, 01.png ... of grey 10, 20 ...
void WriteImages(const fs::path& folder, int count) {
  fs::create_directories(folder);
  for (int i = 0; i < count; ++i)
    io::WritePng(folder / Cat("0", i, ".png"), Plain(16, 16, static_cast<uint8_t>(10 * (i + 1))));
}

ImageSetOptions Small(const std::vector<ImageSource>& sources) {
  ImageSetOptions options;
  options.size = 4;
  options.sources = sources;
  return options;
}

// The grey that every plain image had, in tens.
std::vector<int> Greys(const at::Tensor& images_NHWC) {
  std::vector<int> greys;
  for (int64_t i = 0; i < images_NHWC.size(0); ++i) {
    const float value = images_NHWC[i].mean().item<float>();
    greys.push_back(static_cast<int>((value + 1) * 127.5F + 5) / 10 * 10);
  }
  return greys;
}

std::string MessageOf(const ImageSetOptions& options, ErrorCode code) {
  try {
    const ImageSet set(options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "accepted";
}

TEST(ImageSetTest, HeldOutImagesAreKeptApart) {
  const TemporaryFolder folder;
  WriteImages(folder / "p", 5);
  WriteFileAtomically(folder / "held.txt", "03.png\r\n01.png\n\n");
  ImageSetOptions options = Small({{.path = folder / "p"}});
  options.held_out = folder / "held.txt";
  const ImageSet set(options);
  EXPECT_EQ(set.num_trained(), 3);
  EXPECT_EQ(set.HeldOut().sizes(), (at::IntArrayRef{2, 4, 4, 3}));
  EXPECT_EQ(Greys(set.HeldOut()), (std::vector{20, 40}));
  EXPECT_EQ(Greys(set.Trained(0, 3)), (std::vector{10, 30, 50}));
  EXPECT_EQ(Greys(set.Trained(2, 1)), (std::vector{50}));
  Random random(1);
  for (const int grey : Greys(set.Batch(200, random, AugmentOptions::None())))
    EXPECT_TRUE(grey == 10 || grey == 30 || grey == 50) << grey;
}

TEST(ImageSetTest, SourcesAreDrawnByWeight) {
  const TemporaryFolder folder;
  WriteImages(folder / "p", 3);
  io::WritePng(folder / "one.png", Plain(9, 7, 200));
  io::WritePng(folder / "never.png", Plain(9, 7, 250));
  const ImageSet set(Small({{.path = folder / "p", .weight = 1},
                            {.path = folder / "never.png", .weight = 0},
                            {.path = folder / "one.png", .weight = 3}}));
  Random random(2);
  std::map<int, int> counts;
  for (const int grey : Greys(set.Batch(4000, random, AugmentOptions::None()))) ++counts[grey];
  ASSERT_EQ(counts.size(), 4u);
  EXPECT_NEAR(counts[200], 3000, 120);
  for (const int grey : {10, 20, 30}) EXPECT_NEAR(counts[grey], 333, 80);
}

TEST(ImageSetTest, FramesOfVideosAreChosenByNumberOrRate) {
  const TemporaryFolder folder;
  io::Mp4Writer writer(folder / "a.mp4", 10);
  for (int i = 0; i < 11; ++i) writer.Add(Plain(32, 24, static_cast<uint8_t>(20 + 10 * i)));
  writer.Finish();
  const ImageSet by_number(Small({{.path = folder / "a.mp4", .max_frames = 3}}));
  EXPECT_EQ(Greys(by_number.Trained(0, 3)), (std::vector{20, 70, 120}));
  const ImageSet by_rate(Small({{.path = folder / "a.mp4", .frames_per_second = 2}}));
  EXPECT_EQ(Greys(by_rate.Trained(0, by_rate.num_trained())), (std::vector{20, 70, 120}));
  EXPECT_EQ(ImageSet(Small({{.path = folder / "a.mp4"}})).num_trained(), 11);
}

TEST(ImageSetTest, BatchesAreAFunctionOfTheRandomNumbers) {
  const TemporaryFolder folder;
  WriteImages(folder / "p", 5);
  const ImageSet set(Small({{.path = folder / "p"}}));
  Random one(3), again(3), plain(3);
  const at::Tensor first = set.Batch(7, one, AugmentOptions());
  EXPECT_EQ(first.sizes(), (at::IntArrayRef{7, 4, 4, 3}));
  EXPECT_TRUE(at::equal(first, set.Batch(7, again, AugmentOptions())));
  EXPECT_FALSE(at::equal(first, set.Batch(7, one, AugmentOptions())));
  set.Batch(14, plain, AugmentOptions::None());
  EXPECT_EQ(plain.counter(), one.counter());
  EXPECT_EQ(set.Batch(0, one, AugmentOptions()).size(0), 0);
  EXPECT_LE(first.max().item<float>(), 1.0F);
  EXPECT_GE(first.min().item<float>(), -1.0F);
}

TEST(ImageSetTest, WideAndTinyImagesAreCroppedAndEnlarged) {
  const TemporaryFolder folder;
  io::RgbImage wide = Plain(48, 8, 0);  // black, grey, black; the middle 8 x 8 stays
  for (int64_t y = 0; y < 8; ++y)
    for (int64_t i = 20 * 3; i < 28 * 3; ++i)
      wide.rgb_HWC[static_cast<size_t>(y * 48 * 3 + i)] = 100;
  io::WritePng(folder / "a.png", wide);
  io::WritePng(folder / "b.png", Plain(1, 1, 150));
  const ImageSet set(Small({{.path = folder.path()}}));
  EXPECT_EQ(Greys(set.Trained(0, 2)), (std::vector{100, 150}));
}

TEST(ImageSetTest, BadImagesStopOrAreCounted) {
  const TemporaryFolder folder;
  WriteImages(folder.path(), 2);
  const std::string whole = ReadFile(folder / "00.png");
  WriteFileAtomically(folder / "00.png", whole.substr(0, whole.size() - 20));
  ImageSetOptions options = Small({{.path = folder.path()}});
  EXPECT_NE(MessageOf(options, ErrorCode::kCorruptData).find("00.png"), std::string::npos);
  options.skip_bad = true;
  const ImageSet set(options);
  EXPECT_EQ(set.num_trained(), 1);
  ASSERT_EQ(set.skipped().size(), 1u);
  EXPECT_EQ(set.skipped()[0].path.filename(), "00.png");
}

TEST(ImageSetTest, WrongSettingsAreNamed) {
  const TemporaryFolder folder;
  WriteImages(folder / "p", 2);
  const ImageSetOptions good = Small({{.path = folder / "p"}});
  EXPECT_EQ(MessageOf(good, ErrorCode::kInternal), "accepted");
  ImageSetOptions options = good;
  options.held_out = folder / "held.txt";
  const auto held = [&](const std::string& names) {
    WriteFileAtomically(folder / "held.txt", names);
    return MessageOf(options, ErrorCode::kInvalidArgument);
  };
  EXPECT_NE(held("00.png\n07.png\n").find("07.png is not among"), std::string::npos);
  EXPECT_NE(held("00.png\n00.png\n").find("twice"), std::string::npos);
  EXPECT_NE(held("\n").find("empty"), std::string::npos);
  EXPECT_NE(held("00.png\n01.png\n").find("no image to train on"), std::string::npos);
  options = good;
  options.sources[0].weight = 0;
  EXPECT_NE(MessageOf(options, ErrorCode::kInvalidArgument).find("weight"), std::string::npos);
  options = good;
  options.sources[0].path = folder / "nothing";
  EXPECT_NE(MessageOf(options, ErrorCode::kNotFound).find("nothing"), std::string::npos);
  options = good;
  options.memory_limit_bytes = 200;  // one image takes 192
  EXPECT_NE(MessageOf(options, ErrorCode::kResourceExhausted).find("200 B"), std::string::npos);
  EXPECT_NE(MessageOf(Small({}), ErrorCode::kInvalidArgument).find("no images"), std::string::npos);
}

}  // namespace
}  // namespace lwm::vision_train
