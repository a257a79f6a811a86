#include "lwm/data/code_cache.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <thread>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/image_file.h"
#include "lwm/io/resample.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_vqgan.h"
#include "lwm/vision/frames.h"

namespace lwm::data {
namespace {
namespace fs = std::filesystem;
using testing_support::NoiseImage;
using testing_support::TemporaryFolder;
using testing_support::WriteGreyVideo;
using testing_support::WriteTinyVqgan;

class CodeCacheTest : public testing::Test {
 protected:
  CodeCacheTest() {
    WriteTinyVqgan(folder_ / "vqgan", 3);
    io::WritePng(folder_ / "a.png", NoiseImage(1, 20, 30));
    io::WritePng(folder_ / "b.png", NoiseImage(2, 16, 16));
    WriteGreyVideo(folder_ / "c.mp4", 11);
  }

  CodeCacheOptions Options() const {
    CodeCacheOptions options;
    options.vqgan = folder_ / "vqgan";
    options.folder = folder_ / "cache";
    return options;
  }
  MediaRequest Request(const std::string& name, const vision::VideoOptions& video = {}) const {
    return {folder_ / name, video};
  }
  std::vector<fs::path> Entries() const {
    std::vector<fs::path> entries;
    for (const auto& entry : fs::directory_iterator(folder_ / "cache"))
      entries.push_back(entry.path());
    return entries;
  }

  TemporaryFolder folder_;
};

std::vector<int32_t> Values(const at::Tensor& codes) {
  const at::Tensor flat = codes.to(at::kInt).contiguous();
  return {flat.const_data_ptr<int32_t>(), flat.const_data_ptr<int32_t>() + flat.numel()};
}

TEST_F(CodeCacheTest, CodesAreThoseOfTheVqganAndAreEncodedOnce) {
  const vision::Vqgan vqgan = checkpoint::LoadVqgan(folder_ / "vqgan", at::kFloat);
  const auto wanted = Values(vqgan.Encode(
      vision::TensorOfFrames({io::ResizeAndCrop(io::ReadImage(folder_ / "a.png"), 16)})));
  CodeCache cache(Options());
  EXPECT_EQ(cache.codes_per_frame(), 4);
  EXPECT_EQ(cache.codebook_size(), 50);
  EXPECT_FALSE(cache.Find(Request("a.png")).has_value());
  EXPECT_EQ(cache.Codes(Request("a.png")), wanted);
  EXPECT_EQ(cache.Codes(Request("a.png")), wanted);
  EXPECT_EQ(cache.counts().encoded, 1);
  EXPECT_EQ(cache.counts().found, 1);
  CodeCache again(Options());
  EXPECT_EQ(again.Find(Request("a.png")), wanted);
  EXPECT_NE(cache.Codes(Request("b.png")), wanted);
  EXPECT_EQ(Entries().size(), 2u);
}

TEST_F(CodeCacheTest, ClipsAreEncodedInBatchesWithTheirOptionsInTheKey) {
  CodeCacheOptions options = Options();
  options.batch = 3;
  CodeCache cache(options);
  const auto all = cache.Codes(Request("c.mp4"));
  EXPECT_EQ(all.size(), 44u);
  const auto three = cache.Codes(Request("c.mp4", {.max_frames = 3}));
  ASSERT_EQ(three.size(), 12u);
  EXPECT_TRUE(std::equal(three.begin() + 4, three.begin() + 8, all.begin() + 20));
  EXPECT_EQ(cache.Codes(Request("c.mp4", {.frames_per_second = 5})).size(), 24u);
  EXPECT_EQ(cache.Codes(Request("c.mp4", {.start_seconds = 1})).size(), 4u);
  EXPECT_EQ(cache.counts().frames, 11 + 3 + 6 + 1);
  EXPECT_EQ(Entries().size(), 4u);
}

TEST_F(CodeCacheTest, FillingEncodesFramesOfSeveralFilesTogetherAndPassesOverBadOnes) {
  WriteFileAtomically(folder_ / "bad.png", "no image");
  std::vector<std::vector<int32_t>> alone;
  for (const char* name : {"a.png", "c.mp4", "b.png"}) {
    CodeCacheOptions options = Options();
    options.folder = folder_ / "alone";
    alone.push_back(CodeCache(options).Codes(Request(name)));
  }
  CodeCacheOptions options = Options();
  options.batch = 5;
  CodeCache cache(options);
  std::vector<int64_t> progress;
  const int64_t failed = cache.Fill({Request("a.png"), Request("c.mp4"), Request("none.png"),
                                     Request("bad.png"), Request("b.png")},
                                    [&](int64_t done) { progress.push_back(done); });
  EXPECT_EQ(failed, 2);
  EXPECT_EQ(progress, (std::vector<int64_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(cache.counts().frames, 13);
  EXPECT_EQ(cache.Find(Request("a.png")), alone[0]);
  EXPECT_EQ(cache.Find(Request("c.mp4")), alone[1]);
  EXPECT_EQ(cache.Find(Request("b.png")), alone[2]);
  EXPECT_EQ(cache.Fill({Request("a.png"), Request("b.png")}, [](int64_t) {}), 0);
  EXPECT_EQ(cache.counts().encoded, 3);
}

TEST_F(CodeCacheTest, FileThatIsAskedForTwiceIsEncodedOnce) {
  CodeCache cache(Options());
  std::vector<int64_t> progress;
  EXPECT_EQ(cache.Fill({Request("a.png"), Request("b.png"), Request("a.png")},
                       [&](int64_t done) { progress.push_back(done); }),
            0);
  EXPECT_EQ(cache.counts().encoded, 2);
  EXPECT_EQ(cache.counts().damaged, 0);
  EXPECT_EQ(progress.back(), 3);
}

TEST_F(CodeCacheTest, ImageTooThinToCropIsNamed) {
  io::WritePng(folder_ / "thin.png", testing_support::NoiseImage(7, 1, 4000));
  CodeCache cache(Options());
  try {
    cache.Codes(Request("thin.png"));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("thin.png: 1 x 4000"), std::string::npos)
        << error.what();
  }
}

TEST_F(CodeCacheTest, KeyFollowsContentAndSettingsNotTheName) {
  CodeCache cache(Options());
  const auto a = cache.Codes(Request("a.png"));
  fs::copy_file(folder_ / "a.png", folder_ / "moved.png");
  EXPECT_EQ(cache.Find(Request("moved.png")), a);
  fs::copy_file(folder_ / "b.png", folder_ / "a.png", fs::copy_options::overwrite_existing);
  EXPECT_FALSE(CodeCache(Options()).Find(Request("a.png")).has_value()) << "changed content";
  CodeCacheOptions larger = Options(), bf16 = Options(), other = Options();
  larger.frame_size = 32;
  bf16.dtype = config::Dtype::kBF16;
  WriteTinyVqgan(folder_ / "other", 4);
  other.vqgan = folder_ / "other";
  EXPECT_EQ(CodeCache(larger).codes_per_frame(), 16);
  for (const CodeCacheOptions& options : {larger, bf16, other})
    EXPECT_FALSE(CodeCache(options).Find(Request("moved.png")).has_value());
}

TEST_F(CodeCacheTest, DamagedEntriesAreMadeAnew) {
  CodeCache cache(Options());
  const auto wanted = cache.Codes(Request("a.png"));
  const fs::path entry = Entries().at(0);
  const std::string whole = ReadFile(entry);
  std::vector<std::string> damaged = {"", "x", whole.substr(0, whole.size() - 1), whole + "y"};
  for (size_t i = 0; i < whole.size(); i += 9) {
    damaged.push_back(whole);
    damaged.back()[i] ^= 1;
  }
  for (const std::string& bytes : damaged) {
    WriteFileAtomically(entry, bytes);
    ASSERT_FALSE(cache.Find(Request("a.png")).has_value());
    ASSERT_EQ(cache.Codes(Request("a.png")), wanted);
    ASSERT_EQ(ReadFile(entry), whole);
  }
  EXPECT_EQ(cache.counts().damaged, static_cast<int64_t>(damaged.size()));
}

TEST_F(CodeCacheTest, ProcessesAndThreadsMayShareTheFolder) {
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      at::set_num_threads(1);
      CodeCache cache(Options());
      const bool good =
          cache.Codes(Request("a.png")).size() == 4 && cache.Codes(Request("c.mp4")).size() == 44;
      _exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(Entries().size(), 2u) << "nothing is left of writing";
  CodeCache cache(Options());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] { EXPECT_EQ(cache.Codes(Request("b.png")).size(), 4u); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(cache.counts().encoded, 1);
}

std::string MessageOf(CodeCache& cache, const MediaRequest& request, ErrorCode code) {
  try {
    cache.Codes(request);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

TEST_F(CodeCacheTest, WhatCannotBeEncodedIsNamedAndLeavesNothing) {
  CodeCache cache(Options());
  WriteFileAtomically(folder_ / "bad.png", "no image");
  WriteFileAtomically(folder_ / "empty.mp4", "");
  EXPECT_NE(MessageOf(cache, Request("none.png"), ErrorCode::kNotFound).find("none.png"),
            std::string::npos);
  EXPECT_NE(MessageOf(cache, Request("bad.png"), ErrorCode::kCorruptData).find("bad.png"),
            std::string::npos);
  EXPECT_NE(MessageOf(cache, Request("empty.mp4"), ErrorCode::kCorruptData).find("empty.mp4"),
            std::string::npos);
  EXPECT_NE(MessageOf(cache, Request("a.png", {.max_frames = 2}), ErrorCode::kInvalidArgument)
                .find("is an image"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder_ / "cache"));
  CodeCacheOptions options = Options();
  options.frame_size = 20;
  EXPECT_ERROR(CodeCache{options}, kInvalidArgument);
  options = Options();
  options.folder = folder_ / "a.png" / "cache";
  CodeCache unwritable(options);
  MessageOf(unwritable, Request("b.png"), ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace lwm::data
