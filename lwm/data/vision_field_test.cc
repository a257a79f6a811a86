#include "lwm/data/vision_field.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/image_file.h"
#include "lwm/testing/byte_tokenizer.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_vqgan.h"

namespace lwm::data {
namespace {
namespace fs = std::filesystem;
using testing_support::BytesAsText;
using testing_support::ByteTokenizer;
using testing_support::NoiseImage;
using testing_support::TemporaryFolder;

class VisionFieldTest : public testing::Test {
 protected:
  VisionFieldTest() {
    testing_support::WriteTinyVqgan(folder_ / "vqgan", 3);
    fs::create_directories(folder_ / "media");
    io::WritePng(folder_ / "media" / "a.png", NoiseImage(1, 20, 30));
    io::WritePng(folder_ / "media" / "b.png", NoiseImage(2, 16, 16));
    testing_support::WriteGreyVideo(folder_ / "media" / "c.mp4", 11);
    data::CodeCacheOptions options;
    options.vqgan = folder_ / "vqgan";
    options.folder = folder_ / "cache";
    UseMedia(grammar_, std::make_shared<data::CodeCache>(options));
  }

  std::vector<int32_t> Codes(const std::string& value) const {
    return VisionCodes(Json::parse(value), "x_vision", place_, grammar_);
  }
  std::string MessageOf(const std::string& value) const {
    try {
      Codes(value);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
      EXPECT_TRUE(std::string(error.what()).starts_with("l.jsonl:3: field \"x_vision\" "))
          << error.what();
      return error.what();
    }
    return "accepted";
  }
  void ExpectMessage(const std::string& value, const std::string& part) const {
    EXPECT_NE(MessageOf(value).find(part), std::string::npos) << MessageOf(value);
  }

  TemporaryFolder folder_;
  FieldGrammar grammar_;
  LinePlace place_{.index = 2, .where = "l.jsonl:3", .folder = folder_ / "media"};
};

std::string CodesAsText(const std::vector<int32_t>& code_n) {
  std::string text;
  for (const int32_t code : code_n) text += "(" + std::to_string(code) + ")";
  return text;
}

TEST_F(VisionFieldTest, ImageBecomesItsCodesBetweenTags) {
  const Json line = {{"caption", "hat"}, {"image_vision", "a.png"}};
  grammar_.fields = {"[caption],image_vision"};
  const Example example = BuildExample(line, place_, ByteTokenizer(), grammar_);
  const auto codes = Codes("\"a.png\"");
  ASSERT_EQ(codes.size(), 4u);
  EXPECT_EQ(BytesAsText(example), "^hat<vision>" + CodesAsText(codes) + "(51)</vision>$");
}

TEST_F(VisionFieldTest, ListsAreFramesOfOneClip) {
  auto both = Codes("\"a.png\"");
  const auto second = Codes("\"b.png\"");
  both.insert(both.end(), second.begin(), second.end());
  EXPECT_EQ(Codes(R"(["a.png", {"path": "b.png"}])"), both);
  const Json line = {{"vision", {"a.png", "b.png"}}};
  grammar_.fields = {"vision"};
  const std::string text = BytesAsText(BuildExample(line, place_, ByteTokenizer(), grammar_));
  const std::string first = CodesAsText({both.begin(), both.begin() + 4});
  EXPECT_EQ(text, "^<vision>" + first + "(50)" + CodesAsText(second) + "(51)</vision>$");
}

TEST_F(VisionFieldTest, OptionsChooseFramesOfAVideo) {
  const auto all = Codes("\"c.mp4\"");
  ASSERT_EQ(all.size(), 44u);
  EXPECT_EQ(Codes(R"({"path": "c.mp4", "fps": 5})").size(), 24u);
  EXPECT_EQ(Codes(R"({"path": "c.mp4", "frames": 3, "start": 0.5})").size(), 12u);
  grammar_.max_frames = 3;
  const auto thinned = Codes("\"c.mp4\"");
  ASSERT_EQ(thinned.size(), 12u) << "only the frames that are kept are encoded";
  for (const int64_t i : {0, 1, 2})
    EXPECT_TRUE(
        std::equal(thinned.begin() + 4 * i, thinned.begin() + 4 * i + 4, all.begin() + 4 * 5 * i));
}

TEST_F(VisionFieldTest, ErrorsNameFileLineFieldAndReason) {
  WriteFileAtomically(folder_ / "media" / "bad.png", "no image");
  ExpectMessage("\"none.png\"", "none.png: no such file");
  ExpectMessage("\"bad.png\"", "bad.png");
  ExpectMessage(R"({"path": "c.mp4", "fsp": 2})", "did you mean \"fps\"?");
  ExpectMessage(R"({"fps": 2})", "has no \"path\"");
  ExpectMessage(R"({"path": 5})", "has no \"path\"");
  ExpectMessage(R"({"path": "c.mp4", "frames": 1.5})", "want a whole number");
  ExpectMessage(R"({"path": "c.mp4", "fps": -1})", "want a number from 0");
  ExpectMessage(R"({"path": "c.mp4", "start": 60})", "after 60 s");
  ExpectMessage(R"({"path": "a.png", "frames": 2})", "is an image");
  ExpectMessage(R"(["a.png", 3])", "mixes media with 3");
  ExpectMessage("3", "no list of vision codes");
  ExpectMessage("[]", "holds no frame");
  ExpectMessage("[1, 2, 3]", "has 3 codes, fewer than the 4 of a frame");
  ExpectMessage("[1, 2, 3, 4, 5]", "has 5 codes, which is no multiple of the 4 of a frame");
  ExpectMessage("[1, 2, 3, 50]", "has 50 at index 3, want a code of 0 to 49");
  grammar_.media = nullptr;
  ExpectMessage("\"a.png\"", "no VQGAN is given");
}

TEST_F(VisionFieldTest, MediaOfALineAreFoundAndMayBeReplaced) {
  Json line = Json::parse(R"({"image_vision": "a.png", "vision2": [1, 2], "caption": "x.png",
      "chat": [{"role": "user", "content": [{"type": "video", "path": "c.mp4"}, "look"]}]})");
  std::vector<std::string> found;
  ForEachMedia(line, [&](Json& value, const std::string& field) {
    found.push_back(field + " " + value.dump());
    value = 0;
  });
  EXPECT_EQ(found, (std::vector<std::string>{R"(chat {"path":"c.mp4","type":"video"})",
                                             R"(image_vision "a.png")"}));
  EXPECT_EQ(line["image_vision"], 0);
  EXPECT_EQ(line["chat"][0]["content"][0], 0);
}

TEST_F(VisionFieldTest, MediaOfAPartWithCodesAreNotAskedFor) {
  Json line = Json::parse(R"({"chat": [{"role": "user", "content": [
      {"type": "image", "path": "a.png", "codes": [1, 2, 3, 4]},
      {"type": "text", "text": "look", "path": "b.png"}]}]})");
  ForEachMedia(line, [](Json& value, const std::string&) { ADD_FAILURE() << value.dump(); });
}

TEST_F(VisionFieldTest, NulInACaptionIsRefused) {
  const Json line = Json::parse(R"({"fields": "a+b", "a": "x", "b": "y\u0000"})");
  try {
    BuildExample(line, place_, ByteTokenizer(), grammar_);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "l.jsonl:3: field \"b\" holds a NUL character");
  }
}

}  // namespace
}  // namespace lwm::data
