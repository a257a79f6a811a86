#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace lwm::data {

// What a tokenizer also is when it can encode a text that is partly a stranger's.
class MarkedEncoder {
 public:
  virtual ~MarkedEncoder() = default;

  // As Tokenizer::EncodeSpecial, but the bytes of `text` whose entry in `foreign` is not 0 belong
  // to no special token.
  virtual std::vector<int32_t> EncodeMarked(std::string_view text,
                                            std::string_view foreign) const = 0;
};

}  // namespace lwm::data
