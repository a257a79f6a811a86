// A tokenizer file of any bytes (SentencePiece model, tokenizer.json, GGUF vocabulary) is refused
// with an Error, or it encodes texts to ids of its own and decodes them to valid UTF-8.
#include <string>
#include <vector>

#include "lwm/data/tokenizer.h"
#include "lwm/data/utf8.h"
#include "tests/fuzz/target.h"

namespace {

using lwm::fuzz::Check;

void CheckText(const lwm::data::Tokenizer& tokenizer, const std::string& text) {
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  for (const int32_t id : ids) Check(id >= 0 && id < tokenizer.vocab_size());
  const std::string decoded = tokenizer.Decode(ids);
  Check(lwm::data::ReplaceInvalidUtf8(decoded) == decoded);
  lwm::data::StreamDecoder stream(tokenizer);
  std::string pieces;
  for (const int32_t id : ids) pieces += stream.Push(id);
  Check(pieces + stream.Finish() == decoded);
}

void CheckTokenizer(const lwm::data::Tokenizer& tokenizer) {
  for (const char* text : {"", " ", "Hello, world 123\n", "\xC3\xA9\xF0\x9F\x98\x80 \xFF a\tb"})
    CheckText(tokenizer, text);
  lwm::data::EncodeWithSpecialTokens(tokenizer, "a<s>b</s><|im_end|>");
  const int32_t last = tokenizer.vocab_size() - 1;
  for (const int32_t id : {0, last / 2, last}) {
    if (id < 0) continue;
    tokenizer.TokenBytes(id);
    tokenizer.drops_space_at_start(id);
  }
  for (const auto& [name, id] : tokenizer.special_tokens())
    Check(!name.empty() && id >= 0 && id <= last);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const lwm::fuzz::InputFile file(data, size);
  return lwm::fuzz::ReadOrRefuse(
      data, size, [&](auto) { CheckTokenizer(*lwm::data::OpenTokenizer(file.path())); });
}
