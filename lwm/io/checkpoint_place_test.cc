#include "lwm/io/checkpoint_place.h"

#include <gtest/gtest.h>

#include <fstream>

#include "lwm/io/open_tensor_source.h"
#include "lwm/io/safetensors.h"
#include "lwm/io/tensor_source.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

using testing_support::ExpectError;

class CheckpointPlaceTest : public testing::Test {
 protected:
  fs::path Make(const fs::path& name, const std::string& content = "x") {
    const fs::path file = folder_ / name;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << content;
    return file;
  }
  void MakeWeights(const fs::path& name) {
    Make(name);
    SafetensorsWriter writer(folder_ / name, {{"w", DType::kF32, {1}}});
    writer.Write("w", std::vector<std::byte>(4));
    writer.Finish();
  }
  void ExpectFound(const fs::path& named, const fs::path& place) {
    EXPECT_EQ(fs::weakly_canonical(FindCheckpoint(folder_ / named)),
              fs::weakly_canonical(folder_ / place));
  }
  void ExpectRefused(const fs::path& named, const std::vector<std::string>& parts) {
    ExpectError([&] { FindCheckpoint(folder_ / named); }, ErrorCode::kNotFound, parts);
  }

  testing_support::TemporaryFolder folder_;
};

TEST_F(CheckpointPlaceTest, FoldersAndFilesOfTheirOwnStay) {
  Make("model/config.json");
  Make("model/model.safetensors");
  Make("model/more.gguf");
  for (const char* name : {"model", "model/model.safetensors", "model/more.gguf", "absent"})
    EXPECT_EQ(FindCheckpoint(folder_ / name), folder_ / name);
}

TEST_F(CheckpointPlaceTest, CacheLeadsToTheSnapshotThatMainNames) {
  const fs::path cache = "models--acme--tiny";
  Make(cache / "refs/main", "0a1b\n");
  Make(cache / "snapshots/0a1b/config.json");
  Make(cache / "snapshots/ffff/config.json");
  for (const fs::path& named : {cache, cache / "", cache / "snapshots", cache / "snapshots" / ""})
    ExpectFound(named, cache / "snapshots/0a1b");
  Make(cache / "refs/main", "cccc");
  ExpectRefused(cache, {"refs/main", "snapshot cccc", "download is incomplete"});
  Make(cache / "refs/main", "../../x");
  ExpectError([&] { FindCheckpoint(folder_ / cache); }, ErrorCode::kCorruptData, {"refs/main"});
}

TEST_F(CheckpointPlaceTest, CacheWithoutMainLeadsToTheOnlySnapshot) {
  const fs::path cache = "models--acme--tiny";
  fs::create_directories(folder_ / cache / "snapshots");
  ExpectRefused(cache, {"holds no snapshot"});
  Make(cache / "snapshots/0a1b/config.json");
  ExpectFound(cache, cache / "snapshots/0a1b");
  Make(cache / "snapshots/ffff/config.json");
  ExpectRefused(cache, {"several snapshots (0a1b, ffff)", "name the one"});
}

TEST_F(CheckpointPlaceTest, RunFolderLeadsToItsModel) {
  Make("run/log.txt");
  fs::create_directories(folder_ / "run/checkpoints");
  ExpectRefused("run", {"run folder", "no checkpoint was written yet"});
  Make("run/checkpoints/step_5/config.json");
  ExpectRefused("run", {"name one of its checkpoints: step_5"});
  fs::create_directory_symlink("checkpoints/step_5", folder_ / "run/model");
  ExpectFound("run", "run/checkpoints/step_5");
}

TEST_F(CheckpointPlaceTest, FolderOfOneGgufLeadsToIt) {
  Make("one/README.md");
  Make("one/tiny.gguf");
  ExpectFound("one", "one/tiny.gguf");
  Make("two/b.gguf");
  Make("two/a.gguf");
  ExpectRefused("two", {"several GGUF models (a.gguf, b.gguf)", "name the one"});
  for (const char* number : {"1", "2"})
    Make(std::string("split/m-0000") + number + "-of-00002.gguf");
  ExpectFound("split", "split/m-00001-of-00002.gguf");
  ExpectFound("split/m-00002-of-00002.gguf", "split/m-00001-of-00002.gguf");
}

TEST_F(CheckpointPlaceTest, LongListsAreCut) {
  EXPECT_EQ(NameSome({"x/a", "b"}), "a, b");
  EXPECT_EQ(NameSome(std::vector<fs::path>(8, "a")), "a, a, a, a, a, a and 2 more");
}

// Errors of OpenTensorSource for folders without whole weights.
class IncompleteFolderTest : public CheckpointPlaceTest {
 protected:
  void ExpectNotOpened(const std::vector<std::string>& parts) {
    ExpectError([&] { OpenTensorSource(folder_.path()); }, ErrorCode::kNotFound, parts);
  }
};

TEST_F(IncompleteFolderTest, MissingShardsAreCountedAndNamed) {
  MakeWeights("model-00001-of-00003.safetensors");
  ExpectNotOpened({"model-00001-of-00003.safetensors", "not the index.json", "incomplete"});
  Make("model.safetensors.index.json",
       R"({"weight_map": {"w": "model-00001-of-00003.safetensors",
           "x": "model-00002-of-00003.safetensors", "y": "model-00003-of-00003.safetensors"}})");
  ExpectNotOpened({"2 of 3 shards are missing", "model-00002-of-00003.safetensors", "incomplete"});
}

TEST_F(IncompleteFolderTest, LinksThatLeadNowhereAndUnfinishedFilesAreNamed) {
  Make("config.json");
  ExpectNotOpened({"holds no weights"});
  fs::create_symlink("../../blobs/absent", folder_ / "model.safetensors");
  ExpectNotOpened({"model.safetensors is not there or not whole", "download is incomplete"});
  fs::remove(folder_ / "model.safetensors");
  Make("model.safetensors.incomplete");
  ExpectNotOpened({"model.safetensors.incomplete", "download is incomplete"});
}

TEST_F(IncompleteFolderTest, FoldersThatHoldModelsAreNamed) {
  Make("b/config.json");
  fs::create_directories(folder_ / "models--acme--tiny/snapshots");
  Make("images/x.png");
  ExpectNotOpened({"holds no weights", "name one of the folders in it: b, models--acme--tiny"});
}

TEST_F(IncompleteFolderTest, WhatIsTakenForWeightsIsNamed) {
  const std::pair<std::string, const char*> cases[] = {
      {"<!DOCTYPE html><html>404</html>", "web page"},
      {"{\"error\": \"no access\"}", "JSON text"},
      {"\x1f\x8b\x08 rest", "gzip archive"},
      {"\x89HDF\r\n rest", "HDF5"},
      {"tjgg rest", "older than GGUF"},
      {"", "the file is empty"}};
  for (const auto& [content, part] : cases) {
    Make("pytorch_model.bin", content);
    for (const fs::path& path : {folder_.path(), fs::path(folder_ / "pytorch_model.bin")})
      ExpectError([&] { OpenTensorSource(path); }, ErrorCode::kCorruptData,
                  {"pytorch_model", part});
  }
}

TEST_F(IncompleteFolderTest, NamesOfAHubAreToldFromPaths) {
  const auto expect = [](const char* name, const char* part) {
    ExpectError([&] { OpenTensorSource(name); }, ErrorCode::kNotFound, {name, part});
  };
  expect("acme-org/tiny-3.2-1B", "download it first");
  expect("acme-org/tiny/model.safetensors", "no such file or folder");
  EXPECT_ERROR(OpenTensorSource("/acme-org/tiny"), kNotFound);
}

}  // namespace
}  // namespace lwm::io
