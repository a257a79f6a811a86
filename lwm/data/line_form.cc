#include "lwm/data/line_form.h"

#include "lwm/base/error.h"
#include "lwm/base/text.h"

namespace lwm::data {
namespace {

constexpr char kMessages[] =
    R"({"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]})";

// Alpaca's question is its instruction and, where there is one, its input.
std::string AlpacaHint(const Json& object) {
  const bool has_input = object.contains("input") && object.at("input") != "";
  return Cat(
      "is in Alpaca's form (instruction, input, output): give --fields (in a recipe: fields) ",
      "\"[instruction", has_input ? "+input" : "", "],output\", or write ", kMessages);
}

std::string ShareGptHint() {
  return Cat("is in ShareGPT's form (conversations with from and value): write it as ", kMessages);
}

// A question and its answer under names that are often used.
std::string PairHint(const Json& object) {
  constexpr const char* kPairs[][2] = {{"prompt", "completion"},
                                       {"prompt", "response"},
                                       {"question", "answer"},
                                       {"input", "output"}};
  for (const auto& [question, answer] : kPairs)
    if (object.contains(question) && object.contains(answer))
      return Cat("has a ", question, " and its ", answer,
                 ": give --fields (in a recipe: fields) \"[", question, "],", answer,
                 "\", or write ", kMessages);
  return "";
}

std::string KeysOf(const Json& object) {
  std::string keys;
  for (const auto& [key, value] : object.items()) {
    if (keys.size() > 100) return keys + ", ...";
    keys += (keys.empty() ? "" : ", ") + WithoutControls(key.substr(0, 40));
  }
  return keys.empty() ? "none" : keys;
}

}  // namespace

std::string ConversationKey(const Json& object, bool has_default_fields) {
  if (object.contains("fields")) return "";
  if (object.contains("chat")) return "chat";
  const bool free = !has_default_fields && !object.contains("text");
  return free && object.contains("messages") ? "messages" : "";
}

void RequireKnownForm(const Json& object, const std::string& where) {
  if (object.contains("fields") || object.contains("text")) return;
  std::string form;
  if (object.contains("instruction") && object.contains("output"))
    form = AlpacaHint(object);
  else if (object.contains("conversations"))
    form = ShareGptHint();
  else
    form = PairHint(object);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, form.empty(), where, ": the line ", form);
  ThrowJsonField(where, "text",
                 Cat("is missing, and so are \"fields\", \"chat\" and \"messages\"; the line has ",
                     KeysOf(object)));
}

}  // namespace lwm::data
