#include "lwm/data/tokenizer_difference.h"

#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/json.h"

namespace lwm::data {
namespace {

// Quoted, in one line, invalid UTF-8 replaced.
std::string Quoted(const std::string& bytes) {
  return Json(bytes).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string TokenizerDifference(const Tokenizer& a, const Tokenizer& b) {
  if (a.file_name() == b.file_name() && a.file_content() == b.file_content()) return "";
  if (a.vocab_size() != b.vocab_size())
    return Cat(a.vocab_size(), " ids instead of ", b.vocab_size());
  // Texts that many merges take part in: the tokens themselves, one after the other.
  constexpr size_t kTextBytes = 4096;
  std::string text;
  for (int32_t id = 0; id < a.vocab_size(); ++id) {
    const std::string bytes = a.TokenBytes(id);
    if (bytes != b.TokenBytes(id))
      return Cat("id ", id, " is ", Quoted(bytes), " instead of ", Quoted(b.TokenBytes(id)));
    text += bytes;
    if (text.size() < kTextBytes && id + 1 < a.vocab_size()) continue;
    if (a.Encode(text) != b.Encode(text)) return "it divides words differently";
    text.clear();
  }
  return "";
}

}  // namespace lwm::data
