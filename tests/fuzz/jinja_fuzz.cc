// A chat template of any bytes is refused with an Error, or it renders within its limits; what it
// renders from a conversation keeps the marks of the conversation's bytes.
#include <string>

#include "lwm/jinja/json_value.h"
#include "lwm/jinja/template.h"
#include "tests/fuzz/target.h"

namespace {

using lwm::jinja::Value;

const lwm::jinja::Variables& Conversation() {
  const lwm::Json messages = {{{"role", "system"}, {"content", "\x01S"}},
                              {{"role", "user"}, {"content", "\x01U \xC3\xA9"}},
                              {{"role", "assistant"}, {"content", "\x01 A"}}};
  static const lwm::jinja::Variables variables = {
      {"messages", lwm::jinja::ValueOf(messages, /*foreign=*/true)},
      {"bos_token", Value::Of(lwm::jinja::Text("<s>"))},
      {"eos_token", Value::Of(lwm::jinja::Text("</s>"))},
      {"tools", Value::OfNone()},
      {"add_generation_prompt", Value::Of(true)}};
  return variables;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string source(reinterpret_cast<const char*>(data), size);
  return lwm::fuzz::ReadOrRefuse(data, size, [&](auto) {
    const auto text =
        lwm::jinja::Template(source, "fuzz")
            .Render(Conversation(), {.operations = 20'000, .bytes = 1 << 20, .now = 0});
    lwm::fuzz::Check(text.size() <= 3 << 20);
    if (source.find('\x01') != std::string::npos || source.find('\\') != std::string::npos) return;
    for (size_t i = 0; i < text.size(); ++i)  // only the conversation holds this byte
      lwm::fuzz::Check(text.bytes()[i] != '\x01' || text.is_foreign(i));
  });
}
