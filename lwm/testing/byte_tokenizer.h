#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lwm/data/row.h"
#include "lwm/data/tokenizer.h"

namespace lwm::testing_support {

// One token per byte, so that tests can count: id = byte + 3, bos 1, eos 2.
class ByteTokenizer : public data::Tokenizer {
 public:
  std::vector<int32_t> Encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(3 + static_cast<uint8_t>(c));
    return ids;
  }
  std::string TokenBytes(int32_t id) const override {
    return id < 3 ? "" : std::string(1, static_cast<char>(id - 3));
  }
  bool drops_space_at_start(int32_t) const override { return false; }
  int32_t vocab_size() const override { return 259; }
  int32_t bos_id() const override { return 1; }
  int32_t eos_id() const override { return 2; }
  int32_t unk_id() const override { return 0; }
  int32_t pad_id() const override { return -1; }
  bool begins_with_bos() const override { return true; }
  const std::vector<std::pair<std::string, int32_t>>& special_tokens() const override {
    return special_tokens_;
  }
  std::string file_name() const override { return "bytes"; }
  const std::string& file_content() const override { return content_; }

 private:
  std::string content_ = "bytes";
  std::vector<std::pair<std::string, int32_t>> special_tokens_;
};

// Tokens as text: BOS is '^', EOS '$', a vision code its number in "(7)".
template <class Tokens, class Modalities>
std::string BytesAsText(const Tokens& token_n, const Modalities& vision_n, size_t begin,
                        size_t end) {
  std::string text;
  for (size_t i = begin; i < end; ++i) {
    const int32_t id = token_n[i];
    if (vision_n[i])
      text += "(" + std::to_string(id) + ")";
    else
      text += id == 1 ? '^' : id == 2 ? '$' : static_cast<char>(id - 3);
  }
  return text;
}
inline std::string BytesAsText(const data::Example& example) {
  return BytesAsText(example.token_n, example.vision_n, 0, example.token_n.size());
}

// What is learned of the example, the rest as dots.
inline std::string LearnedAsText(data::Example example) {
  for (size_t i = 0; i < example.token_n.size(); ++i) {
    if (example.loss_weight_n[i] > 0) continue;
    example.token_n[i] = 3 + '.';
    example.vision_n[i] = 0;
  }
  return BytesAsText(example);
}

}  // namespace lwm::testing_support
