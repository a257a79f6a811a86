#include "lwm/data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/gzip_bytes.h"
#include "lwm/testing/loader_fixture.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

TEST_F(LoaderTest, EveryTokenOfEveryBookComesOncePerEpoch) {
  LoaderConfig config = Books();
  const auto loader = Open(config);
  const int64_t units = loader->summary().train_units;
  std::map<std::string, int> seen;
  int64_t targets = 0;
  for (int64_t segments = 0; segments < units;) {
    const Row row = loader->Next();
    for (const std::string& segment : Segments(row)) {
      ++seen[segment];
      ++segments;
    }
    for (const int32_t target : row.target_S) targets += target != kNoTarget;
    ASSERT_LE(segments, units);
  }
  std::string books;
  int64_t learnable = 0;
  for (int book = 0; book < 5; ++book) {
    std::string text = "^" + ReadFile(folder_ / "books" / Cat("book", book, ".txt")) + "$";
    learnable += static_cast<int64_t>(text.size()) - 1;
    for (size_t at = 0; at + 1 < text.size(); at += 64) {
      const std::string unit = text.substr(at, 64);
      EXPECT_EQ(seen[unit], 1) << unit;
      seen.erase(unit);
    }
  }
  EXPECT_EQ(targets, learnable);
  EXPECT_EQ(seen.size(), 0u);
}

TEST_F(LoaderTest, JoinedBooksFillEveryRowAndShowEveryTargetOncePerEpoch) {
  const auto loader = Open(Books(PackingPolicy::kConcatenate));
  const int64_t units = loader->summary().train_units, tokens = loader->summary().tokens;
  EXPECT_EQ(units, (tokens - 2) / 64 + 1);
  int64_t targets = 0;
  for (int64_t r = 0; r < units; ++r) {
    const Row row = loader->Next();
    EXPECT_EQ(row.padding, 0);
    EXPECT_EQ(row.examples, 1);
    EXPECT_EQ(Segments(row).size(), 1u);
    for (const int32_t target : row.target_S) targets += target != kNoTarget;
  }
  EXPECT_EQ(targets, tokens - 5);  // all but the five BOS
}

TEST_F(LoaderTest, OrderDependsOnSeedAndEpochOnly) {
  LoaderConfig config = Books();
  config.prefetch_rows = 0;
  const auto a = Open(config);
  config.prefetch_rows = 3;
  const auto b = Open(config);
  config.seed = 43;
  const auto c = Open(config);
  bool differs = false;
  std::vector<std::vector<int32_t>> first;
  for (int r = 0; r < 80; ++r) {
    const Row row = a->Next();
    ExpectSameRow(row, b->Next());
    differs = differs || row.token_S != c->Next().token_S;
    first.push_back(row.token_S);
  }
  EXPECT_TRUE(differs);
  EXPECT_GT(a->epoch(), 1.5);
  const auto repeat = std::find(first.begin() + 1, first.end(), first[0]);
  ASSERT_LT(first.end() - repeat, 70);
  EXPECT_NE(first[1], *(repeat + 1));  // the second epoch has another order
}

TEST_F(LoaderTest, ResumesBitForBitFromEveryState) {
  LoaderConfig mixed = Books();
  mixed.sources = {Source(Folder("books"), 0.7), Source(Folder("lines.jsonl"), 0.3)};
  mixed.held_out_fraction = 0.1;
  for (const auto policy :
       {PackingPolicy::kMasked, PackingPolicy::kConcatenate, PackingPolicy::kPad}) {
    mixed.packing.policy = policy;
    const auto loader = Open(mixed);
    std::vector<std::string> states;
    std::vector<Row> rows;
    for (int r = 0; r < 60; ++r) {
      states.push_back(loader->SaveState().dump());
      rows.push_back(loader->Next());
    }
    const auto resumed = Open(mixed);
    for (const size_t from : {0u, 1u, 17u, 41u, 3u}) {
      resumed->RestoreState(Json::parse(states[from]));
      EXPECT_EQ(resumed->SaveState().dump(), states[from]);
      for (size_t r = from; r < from + 15; ++r) ExpectSameRow(resumed->Next(), rows[r]);
    }
  }
}

TEST_F(LoaderTest, OtherSharesHoldFromTheStateOnThatTheyComeWith) {
  LoaderConfig config = Books();
  config.sources = {Source(Folder("books"), 0.9), Source(Folder("lines.jsonl"), 0.1)};
  const auto loader = Open(config);
  for (int r = 0; r < 200; ++r) loader->Next();
  const Json state = loader->SaveState();
  config.sources[0].share = config.sources[1].share = 0.5;
  const auto changed = Open(config);
  changed->RestoreState(state);
  int books = 0;
  for (int r = 0; r < 20; ++r) books += Segments(changed->Next())[0].find("line ") > 1;
  EXPECT_EQ(books, 10);
  const auto resumed = Open(config);
  resumed->RestoreState(changed->SaveState());
  ExpectSameRow(resumed->Next(), changed->Next());
}

TEST_F(LoaderTest, SharesAreKeptAfterEveryRow) {
  LoaderConfig config = Books(PackingPolicy::kPad);
  config.sources = {Source(Folder("books"), 84), Source(Folder("lines.jsonl"), 16)};
  const auto loader = Open(config);
  int lines = 0;
  for (int row = 1; row <= 100; ++row) {
    lines += Segments(loader->Next())[0].starts_with("^line");
    EXPECT_NEAR(lines, 0.16 * row, 1.01);
  }
  EXPECT_EQ(lines, 16);
}

TEST_F(LoaderTest, HeldOutUnitsAreNeverTrainedOn) {
  LoaderConfig config = Lines();
  config.held_out_fraction = 0.2;
  const auto loader = Open(config);
  EXPECT_EQ(loader->summary().held_out_units, 120);
  std::set<std::string> held_out;
  const auto rows = loader->HeldOut();
  for (const Row& row : ReadAll(*rows))
    for (const std::string& segment : Segments(row)) EXPECT_TRUE(held_out.insert(segment).second);
  EXPECT_EQ(held_out.size(), 120u);
  std::set<std::string> trained;
  for (int r = 0; r < 500; ++r)
    for (const std::string& segment : Segments(loader->Next())) {
      EXPECT_FALSE(held_out.count(segment)) << segment;
      trained.insert(segment);
    }
  EXPECT_EQ(trained.size(), 480u);
}

TEST_F(LoaderTest, ReadingErrorReachesTheConsumerAfterTheGoodRows) {
  std::ofstream(folder_ / "bad.jsonl") << R"({"text": "good"})"
                                       << "\n"
                                       << R"({"txt": "bad"})";
  LoaderConfig config = Books(PackingPolicy::kPad);
  config.sources = {Source(Folder("bad.jsonl"))};
  try {
    const auto loader = Open(config);
    for (int r = 0; r < 3; ++r) loader->Next();
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("bad.jsonl:2: field \"text\" is missing"),
              std::string::npos)
        << error.what();
  }
  config.skip_bad_lines = true;
  const auto loader = Open(config);
  for (int r = 0; r < 3; ++r) EXPECT_EQ(Segments(loader->Next())[0], "^good$");
}

TEST_F(LoaderTest, DataWithNothingToLearnIsAnErrorNotAnEndlessLoop) {
  LoaderConfig config = Books();
  config.skip_bad_lines = true;
  std::ofstream(folder_ / "bad.jsonl") << "{\n{\n";
  config.sources = {Source(Folder("bad.jsonl"))};
  const auto loader = Open(config);
  EXPECT_ERROR(loader->Next(), kInvalidArgument);
}

// Two epochs may have all their bad lines next to each other, with the good one at the ends.
TEST_F(LoaderTest, TheOnlyGoodLineIsFoundWhereverTheOrderPutsIt) {
  LoaderConfig config = Books(PackingPolicy::kPad);
  config.skip_bad_lines = true;
  config.warn = false;
  std::ofstream(folder_ / "bad.jsonl") << "{\n{\n{\"text\": \"good\"}\n{\n";
  config.sources = {Source(Folder("bad.jsonl"))};
  for (uint64_t seed = 0; seed < 20; ++seed) {
    config.seed = seed;
    const auto loader = Open(config);
    for (int r = 0; r < 20; ++r) EXPECT_EQ(Segments(loader->Next())[0], "^good$");
  }
}

TEST_F(LoaderTest, RowsWithNothingToLearnAreAnErrorAfterTwoEpochs) {
  LoaderConfig config = Books(PackingPolicy::kPad);
  std::ofstream(folder_ / "given.jsonl")
      << R"({"fields": "[text]", "text": ")" << std::string(100, 'x') << "\"}\n";
  config.sources = {Source(Folder("given.jsonl"))};
  const auto loader = Open(config);
  try {
    for (int r = 0; r < 3; ++r) loader->Next();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_STREQ(error.what(), "none of 1 training examples has a token to learn");
  }
}

TEST_F(LoaderTest, EpochsThatPassOverEveryLineAreNoReasonToEndTheRun) {
  std::ofstream(folder_ / "rare.jsonl") << R"({"text": "a", "weight": 0.01})"
                                        << "\n"
                                        << R"({"text": "b", "weight": 0.02})"
                                        << "\n";
  LoaderConfig config = Books();
  config.sources = {Source(Folder("rare.jsonl"))};
  config.sources[0].line_weights = true;
  std::map<std::string, int> seen;
  const auto loader = Open(config);
  for (int r = 0; r < 20; ++r)
    for (const std::string& segment : Segments(loader->Next())) ++seen[segment];
  EXPECT_NEAR(static_cast<double>(seen["^b$"]) / seen["^a$"], 2, 0.5);
  std::ofstream(folder_ / "never.jsonl") << R"({"text": "a", "weight": 1e-9})"
                                         << "\n";
  config.sources[0].paths = {Folder("never.jsonl")};
  EXPECT_ERROR(Open(config), kInvalidArgument);
}

TEST_F(LoaderTest, StateOfOtherDataIsRefused) {
  const Json state = Open(Lines())->SaveState();
  LoaderConfig config = Lines();
  config.seed = 1;
  EXPECT_ERROR(Open(config)->RestoreState(state), kInvalidArgument);
  config = Lines();
  config.packing.row_tokens = 65;
  EXPECT_ERROR(Open(config)->RestoreState(state), kInvalidArgument);
  EXPECT_ERROR(Open(Books())->RestoreState(state), kInvalidArgument);
  EXPECT_ERROR(Open(Lines())->RestoreState(Json("no state")), kCorruptData);
  Json damaged = state;
  damaged["streams"][0]["position"] = -4;
  EXPECT_ERROR(Open(Lines())->RestoreState(damaged), kCorruptData);
  damaged["streams"][0].erase("position");
  EXPECT_ERROR(Open(Lines())->RestoreState(damaged), kCorruptData);
}

TEST_F(LoaderTest, StateOfOtherTextIsRefusedOrBeginsAnew) {
  fs::copy_file(folder_ / "books" / "book0.txt", folder_ / "books" / "copy.txt");
  LoaderConfig mixed = Books();
  mixed.sources.push_back(Source(Folder("lines.jsonl")));
  mixed.held_out_paths = {Folder("books/copy.txt")};
  mixed.cache = folder_ / "cache";
  const auto loader = Open(mixed);
  loader->Next();
  const Json state = loader->SaveState();
  const auto difference = [&] {
    try {
      return Open(mixed)->RestoreState(state) ? "" : "anew";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("data.allow_changed"), std::string::npos);
      return std::string(error.what()).find("the data has changed") == 0 ? "text" : "else";
    }
  };
  EXPECT_STREQ(difference(), "");
  for (const char* name : {"books/book1.txt", "lines.jsonl", "books/copy.txt"}) {
    const std::string before = ReadFile(folder_ / name);
    std::string after = before;
    after[20] = after[20] == 'x' ? 'y' : 'x';
    WriteFileAtomically(folder_ / name, after);
    EXPECT_STREQ(difference(), "text") << name;
    WriteFileAtomically(folder_ / name, before);
  }
  EXPECT_STREQ(difference(), "");
  const std::string lines = ReadFile(folder_ / "lines.jsonl");
  fs::remove(folder_ / "lines.jsonl");  // packed it is the same data
  WriteFileAtomically(folder_ / "lines.jsonl.gz", testing_support::GzipBytes(lines));
  mixed.sources[1].paths = {Folder("lines.jsonl.gz")};
  EXPECT_STREQ(difference(), "");
  mixed.seed = 7;
  EXPECT_STREQ(difference(), "else");
  mixed.allow_changed = true;
  EXPECT_STREQ(difference(), "anew");
  Json older = state;  // of a version that kept no content
  for (const char* key : {"content", "held_out_content"}) older.erase(key);
  mixed.seed = 42;
  EXPECT_TRUE(Open(mixed)->RestoreState(older));
}

TEST_F(LoaderTest, NotesTellWhichFilesAreLeftOut) {
  std::ofstream(folder_ / "books" / "table.csv") << "a,b\n";
  const auto notes = Open(Books())->summary().notes;
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_EQ(notes[0], "1 file left out of " + Folder("books") + ": 1 .csv");
}

TEST_F(LoaderTest, CachedTokensGiveTheSameRows) {
  LoaderConfig config = Books();
  const auto plain = Open(config);
  config.cache = folder_ / "cache";
  const auto first = Open(config), second = Open(config);
  EXPECT_EQ(std::distance(fs::directory_iterator(config.cache), fs::directory_iterator()), 5);
  for (int r = 0; r < 30; ++r) {
    const Row row = plain->Next();
    ExpectSameRow(first->Next(), row);
    ExpectSameRow(second->Next(), row);
  }
  for (const auto& entry : fs::directory_iterator(config.cache)) fs::resize_file(entry, 30);
  EXPECT_ERROR(Open(config), kCorruptData);
}

TEST_F(LoaderTest, CachedTokensAreThoseOfTheirEnd) {
  class OtherEnd : public testing_support::ByteTokenizer {
    int32_t eos_id() const override { return 258; }
  };
  LoaderConfig config = Books(PackingPolicy::kConcatenate);
  config.cache = folder_ / "cache";
  Open(config);
  RowLoader loader(config, std::make_shared<OtherEnd>());
  std::set<int32_t> seen;
  for (int64_t r = 0; r < loader.summary().train_units; ++r)
    for (const int32_t id : loader.Next().token_S) seen.insert(id);
  EXPECT_TRUE(seen.contains(258));
  EXPECT_FALSE(seen.contains(2));
}

TEST_F(LoaderTest, DocumentsOutsideTheLengthLimitsAreLeftOut) {
  LoaderConfig config = Books();
  config.sources[0].min_document_tokens = 390;
  config.sources[0].max_document_tokens = 610;
  EXPECT_EQ(Open(config)->summary().files, 3);
  config.sources[0].min_document_tokens = 10000;
  EXPECT_ERROR(Open(config), kInvalidArgument);
}

TEST_F(LoaderTest, MissingDataIsNamed) {
  LoaderConfig config = Books();
  config.sources[0].paths = {Folder("nothing*.txt")};
  try {
    Open(config);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("nothing*.txt"), std::string::npos);
  }
}

}  // namespace
}  // namespace lwm::data
