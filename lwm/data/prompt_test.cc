#include "lwm/data/prompt.h"

#include <gtest/gtest.h>

#include "lwm/base/file.h"
#include "lwm/testing/byte_tokenizer.h"
#include "lwm/testing/message_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::data {
namespace {

using testing_support::BytesAsText;
using testing_support::ByteTokenizer;

// BOS is "^"; codes are in parentheses, 8 = eof, 9 = eov.
FrameLayout TinyLayout() {
  const ByteTokenizer tokenizer;
  return {.tokens_per_frame = 2,
          .codes = 8,
          .begin_ids = tokenizer.Encode("<"),
          .end_ids = tokenizer.Encode(">")};
}

std::string Shown(const MultimodalSequence& sequence) {
  std::vector<int32_t> ids(sequence.id_n.begin(), sequence.id_n.end());
  return BytesAsText(ids, sequence.vision_n, 0, ids.size());
}

class PromptTest : public testing::Test {
 protected:
  std::string Media(const std::string& text, const std::vector<std::vector<int32_t>>& media) const {
    return Shown(MediaPrompt(tokenizer_, layout_, text, SpecialNames::kAreText, media));
  }

  const ByteTokenizer tokenizer_;
  const FrameLayout layout_ = TinyLayout();
};

TEST_F(PromptTest, TextsBeginWithBos) {
  EXPECT_EQ(Shown(BeginPrompt(tokenizer_)), "^");
  const std::vector<int32_t> ids = EncodePrompt(tokenizer_, "ab");
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 3 + 'a', 3 + 'b'}));
}

TEST_F(PromptTest, FramesFollowTheTextTheyShow) {
  EXPECT_EQ(Shown(FramePrompt(tokenizer_, layout_, "cat")), "^cat<");
  const std::vector<int32_t> codes = {1, 2, 3, 4};
  EXPECT_EQ(Shown(FramePrompt(tokenizer_, layout_, "cat", codes)), "^cat<(1)(2)(8)(3)(4)(8)");
  EXPECT_EQ(Shown(CaptionPrompt(tokenizer_, layout_, codes)), "^<(1)(2)(8)(3)(4)(9)>");
}

TEST_F(PromptTest, MediaStandAtTheirMarkOrFirst) {
  const std::vector<std::vector<int32_t>> media = {{1, 2}, {3, 4}};
  EXPECT_EQ(Media("see {image}?", media), "^see <(1)(2)(9)><(3)(4)(9)>?");
  EXPECT_EQ(Media("see", media), "^<(1)(2)(9)><(3)(4)(9)>see");
  EXPECT_EQ(Media("{image}", {}), "^");
}

TEST_F(PromptTest, AQuestionNeedsATemplate) {
  const ChatQuestion question{.system = "", .user = "why?", .template_file = "", .model = "DIR"};
  EXPECT_NE(testing_support::MessageOf([&] { EncodeChatQuestion(tokenizer_, question); },
                                       ErrorCode::kInvalidArgument)
                .find("DIR has no chat template"),
            std::string::npos);
}

TEST_F(PromptTest, TheGivenTemplateHoldsSystemAndUser) {
  const testing_support::TemporaryFolder folder;
  WriteFileAtomically(folder / "t.jinja",
                      "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}");
  ChatQuestion question{
      .system = "", .user = "why?", .template_file = folder / "t.jinja", .model = "DIR"};
  const auto text = [&] {
    const auto ids = EncodeChatQuestion(tokenizer_, question);
    return BytesAsText(ids, std::vector<uint8_t>(ids.size()), 0, ids.size());
  };
  EXPECT_EQ(text(), "^user=why?;");
  question.system = "short";
  EXPECT_EQ(text(), "^system=short;user=why?;");
}

}  // namespace
}  // namespace lwm::data
