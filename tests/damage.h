#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lwm/base/error.h"

namespace lwm::testing_support {

using ParseBytes = std::function<void(std::span<const std::byte>)>;

// "" when `parse` accepts the bytes, else its message. Any exception but Error(kCorruptData) fails
// the test. The bytes lie in memory of exactly their size, so that a sanitizer sees any overrun.
inline std::string RefusalOf(std::string_view content, const ParseBytes& parse) {
  const auto copy = std::make_unique<std::byte[]>(content.size());
  std::copy_n(reinterpret_cast<const std::byte*>(content.data()), content.size(), copy.get());
  try {
    parse({copy.get(), content.size()});
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData) << error.what();
    return error.what();
  }
}

// A file without its last bytes is refused, wherever it is cut.
inline void ExpectEveryCutIsRefused(std::string_view whole, const ParseBytes& parse) {
  ASSERT_EQ(RefusalOf(whole, parse), "");
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(RefusalOf(whole.substr(0, size), parse), "") << "cut at " << size;
}

// A file with any one byte changed, in turn in one of several ways, is read or refused, never
// worse.
inline void ExpectEveryChangeIsSafe(std::string_view whole, const ParseBytes& parse) {
  constexpr int kChanges[] = {0x01, 0x80, 0xff, 0x08, 0x7e};
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged(whole);
    damaged[i] = static_cast<char>(damaged[i] ^ kChanges[i % 5]);
    RefusalOf(damaged, parse);
  }
}

}  // namespace lwm::testing_support
