#include "lwm/data/chat_turns.h"

#include <utility>

#include "lwm/base/error.h"
#include "lwm/data/tokenizer.h"
#include "lwm/data/vision_field.h"

namespace lwm::data {
namespace {

constexpr char kSystem[] = "You are a helpful assistant.";

// Vocabularies such as LLaMA's begin every encoded text with a space.
bool PutsSpaceBefore(const Tokenizer& tokenizer) {
  const std::vector<int32_t> ids = tokenizer.Encode("a");
  return !ids.empty() && tokenizer.TokenBytes(ids[0]).starts_with(' ');
}

class ChatReader {
 public:
  ChatReader(const std::string& key, const std::string& where, const Tokenizer& tokenizer)
      : key_(key), where_(where), space_(PutsSpaceBefore(tokenizer) ? "" : " ") {}

  std::vector<ExamplePart> Read(const Json& chat) {
    if (!chat.is_array() || chat.empty()) ThrowJsonField(where_, key_, "is no list of turns");
    size_t next = 0;
    given_ = kSystem;
    if (RoleOf(chat[0], 0) == "system") given_ = TextOnly(chat[0], next++);
    if (next == chat.size()) Fail(0, "is followed by no turn of the user's");
    for (const size_t first = next; next < chat.size(); ++next) {
      const bool answers = (next - first) % 2 == 1;
      const std::string wanted = answers ? "assistant" : "user";
      if (RoleOf(chat[next], next) != wanted) Fail(next, "must be the " + wanted + "'s");
      answers ? AddAnswer(chat[next], next) : AddQuestion(chat[next], next);
    }
    if (!given_.empty()) Fail(chat.size() - 1, "must be the assistant's, since it is the last");
    return std::move(parts_);
  }

 private:
  [[noreturn]] void Fail(size_t turn, const std::string& problem) const {
    ThrowJsonField(where_, Cat(key_, "[", turn, "]"), problem);
  }

  std::string RoleOf(const Json& turn, size_t index) const {
    if (!turn.is_object() || !turn.contains("role") || !turn.at("role").is_string())
      Fail(index, "has no \"role\"");
    const auto role = turn.at("role").get<std::string>();
    if (role != "system" && role != "user" && role != "assistant")
      Fail(index, "has the role \"" + role + "\", want system, user or assistant");
    for (const char* unread : {"tool_calls", "function_call"})
      if (turn.contains(unread) && !turn.at(unread).empty())
        Fail(index, Cat("has \"", unread, "\", which conversations here cannot hold"));
    if (!turn.contains("content")) Fail(index, "has no \"content\"");
    return role;
  }

  std::string Checked(const Json& text, size_t turn) const {
    if (!text.is_string()) Fail(turn, "has a text that is no string");
    RequireNoNul(text.get_ref<const std::string&>(), where_, Cat(key_, "[", turn, "]"));
    return text.get<std::string>();
  }

  std::string TextOnly(const Json& turn, size_t index) const {
    const Json& content = turn.at("content");
    if (!content.is_string()) Fail(index, "is the system's and must be a text");
    return Checked(content, index);
  }

  // Calls text(string) and vision(value) for the parts of the content in order.
  template <class OnText, class OnVision>
  void ForEachPart(const Json& turn, size_t index, OnText text, OnVision vision) const {
    const Json& content = turn.at("content");
    if (content.is_string()) return text(Checked(content, index));
    if (!content.is_array()) Fail(index, "has a content that is neither a text nor a list");
    for (const Json& part : content) {
      if (part.is_string()) {
        text(Checked(part, index));
        continue;
      }
      const std::string type =
          part.is_object() && part.contains("type") && part.at("type").is_string()
              ? part.at("type").get<std::string>()
              : "";
      if (type == "text" && part.contains("text")) {
        text(Checked(part.at("text"), index));
      } else if (type == "image" || type == "video") {
        vision(part.contains("codes") ? part.at("codes") : part);
      } else if (type == "image_url") {
        Fail(index, "has an \"image_url\"; want {\"type\": \"image\", \"path\": FILE}");
      } else {
        Fail(index,
             "has a part that is neither {\"type\": \"text\", \"text\"} nor an image or "
             "video");
      }
    }
  }

  void AddQuestion(const Json& turn, size_t index) {
    if (!given_.empty()) given_ += " ";
    given_ += "USER:";
    bool after_text = false;
    ForEachPart(
        turn, index,
        [&](const std::string& text) {
          given_ += " " + text;
          after_text = true;
        },
        [&](const Json& value) {
          if (std::exchange(after_text, false)) given_ += "\n";
          FlushGiven();
          AddVision(value, index, 0);
        });
    given_ += " ASSISTANT:";
  }

  // 0 for an answer that is given, not learned.
  float WeightOf(const Json& turn, size_t index) const {
    if (!turn.contains("weight") || turn.at("weight").is_null()) return 1;
    if (turn.at("weight") != 0 && turn.at("weight") != 1)
      Fail(index, "has a \"weight\" that is neither 0 nor 1");
    return turn.at("weight").get<float>();
  }

  void AddAnswer(const Json& turn, size_t index) {
    FlushGiven();
    const float weight = WeightOf(turn, index);
    const size_t before = parts_.size();
    ForEachPart(
        turn, index,
        [&](const std::string& text) {
          if (!text.empty())
            parts_.push_back({.text = space_ + text, .loss_weight = weight, .is_condition = true});
        },
        [&](const Json& value) { AddVision(value, index, weight); });
    if (parts_.size() == before) Fail(index, "is empty");
    parts_.push_back(
        {.kind = ExamplePart::Kind::kEos, .loss_weight = weight, .is_condition = true});
  }

  void FlushGiven() {
    if (given_.empty()) return;
    parts_.push_back({.text = std::exchange(given_, ""), .loss_weight = 0, .is_condition = true});
  }

  void AddVision(const Json& value, size_t turn, float loss_weight) {
    parts_.push_back({.kind = ExamplePart::Kind::kVision,
                      .vision = &value,
                      .field = Cat(key_, "[", turn, "]"),
                      .loss_weight = loss_weight});
  }

  const std::string& key_;
  const std::string& where_;
  std::string space_;  // put before an answer
  std::string given_;  // text of questions that is not yet a part
  std::vector<ExamplePart> parts_;
};

}  // namespace

std::vector<ExamplePart> ChatParts(const Json& object, const std::string& key,
                                   const std::string& where, const Tokenizer& tokenizer) {
  return ChatReader(key, where, tokenizer).Read(object.at(key));
}

}  // namespace lwm::data
