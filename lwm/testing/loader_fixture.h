// Books and lines on disk for the tests of the row loader.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/data/loader.h"
#include "lwm/testing/byte_tokenizer.h"

namespace lwm::data {

inline SourceConfig Source(const std::string& path, double share = 1) {
  SourceConfig source;
  source.paths = {path};
  source.share = share;
  return source;
}

class LoaderTest : public testing::Test {
 protected:
  LoaderTest()
      : folder_(std::filesystem::path(testing::TempDir()) / Cat("loader_test_", getpid())) {
    std::filesystem::create_directories(folder_ / "books");
    for (int book = 0; book < 5; ++book) {
      std::string text;
      for (int word = 0; text.size() < 300u + 97u * static_cast<unsigned>(book); ++word)
        text += Cat("<", book, ".", word, ">");
      std::ofstream(folder_ / "books" / Cat("book", book, ".txt")) << text;
    }
    std::ofstream lines(folder_ / "lines.jsonl");
    for (int i = 0; i < 600; ++i) {
      if (i % 10 == 3) lines << "\n";
      lines << R"({"text": "line )" << i << " " << std::string(static_cast<size_t>(i % 23), 'x')
            << "\"}\n";
    }
  }
  ~LoaderTest() override { std::filesystem::remove_all(folder_); }

  LoaderConfig Books(PackingPolicy policy = PackingPolicy::kMasked) const {
    LoaderConfig config;
    config.sources = {Source(Folder("books"))};
    config.packing.row_tokens = 64;
    config.packing.policy = policy;
    config.packing.buffer_tokens = 500;
    return config;
  }
  LoaderConfig Lines() const {
    LoaderConfig config = Books();
    config.sources = {Source(Folder("lines.jsonl"))};
    return config;
  }
  std::unique_ptr<RowLoader> Open(const LoaderConfig& config) const {
    return std::make_unique<RowLoader>(config, tokenizer_);
  }
  std::string Folder(const std::string& name) const { return (folder_ / name).string(); }

  std::filesystem::path folder_;
  std::shared_ptr<const Tokenizer> tokenizer_ = std::make_shared<testing_support::ByteTokenizer>();
};

inline void ExpectSameRow(const Row& a, const Row& b) {
  ASSERT_EQ(a.token_S, b.token_S);
  ASSERT_EQ(a.vision_S, b.vision_S);
  ASSERT_EQ(a.target_S, b.target_S);
  ASSERT_EQ(a.target_vision_S, b.target_vision_S);
  ASSERT_EQ(a.weight_S, b.weight_S);
  ASSERT_EQ(a.position_S, b.position_S);
  ASSERT_EQ(a.begin_S, b.begin_S);
  ASSERT_EQ(a.examples, b.examples);
  ASSERT_EQ(a.padding, b.padding);
}

// The segments of a row as text, BOS as '^' and EOS as '$'.
inline std::vector<std::string> Segments(const Row& row) {
  std::vector<std::string> segments;
  for (size_t i = 0; i < row.token_S.size() - static_cast<size_t>(row.padding); ++i) {
    if (row.position_S[i] == 0) segments.emplace_back();
    const int32_t id = row.token_S[i];
    segments.back() += id == 1 ? '^' : id == 2 ? '$' : static_cast<char>(id - 3);
  }
  return segments;
}

// The whole of a held-out or finite run.
inline std::vector<Row> ReadAll(RowSequence& rows) {
  std::vector<Row> all;
  while (auto row = rows.Next()) all.push_back(std::move(*row));
  return all;
}

}  // namespace lwm::data
