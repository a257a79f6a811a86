#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lwm/base/error.h"
#include "lwm/base/process.h"

namespace lwm::testing_support {

using ParseBytes = std::function<void(std::span<const std::byte>)>;

// "" when `parse` accepts the bytes, else its message. Any exception but an Error that blames the
// bytes, a missing file or a config fails the test. The bytes lie in memory of exactly their size,
// so that a sanitizer sees any overrun.
inline std::string RefusalOf(std::string_view content, const ParseBytes& parse) {
  const auto copy = std::make_unique<std::byte[]>(content.size());
  std::copy_n(reinterpret_cast<const std::byte*>(content.data()), content.size(), copy.get());
  try {
    parse({copy.get(), content.size()});
    return "";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_TRUE(error.code() == ErrorCode::kCorruptData || error.code() == ErrorCode::kNotFound ||
                error.code() == ErrorCode::kInvalidArgument)
        << message;
    EXPECT_FALSE(message.empty());
    return message;
  }
}

// For readers that open files: writes the bytes to `damaged`, then reads.
inline ParseBytes AsFile(const std::filesystem::path& damaged, const std::function<void()>& read) {
  return [=](std::span<const std::byte> bytes) {
    std::ofstream(damaged, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    read();
  };
}

// Damaged variants of one file: each is refused in one line or read, never worse, and reading takes
// no more memory than one and a half files and 256 MiB. Counts what was refused.
class DamagedVariants {
 public:
  // `whole` must be accepted.
  DamagedVariants(std::string whole, ParseBytes parse)
      : whole_(std::move(whole)),
        parse_(std::move(parse)),
        peak_before_(PeakMemoryBytes()),
        resident_before_(ResidentMemoryBytes()) {
    EXPECT_EQ(RefusalOf(whole_, parse_), "");
  }

  const std::string& whole() const { return whole_; }
  int refused() const { return refused_; }

  std::string Try(std::string_view variant) {
    std::string message = RefusalOf(variant, parse_);
    refused_ += !message.empty();
    return message;
  }

  // `part` stands in the message.
  void ExpectRefused(std::string_view variant, std::string_view part = "") {
    const std::string message = Try(variant);
    EXPECT_NE(message, "") << "accepted, where \"" << part << "\" should be refused";
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }

  // Cut at each multiple of `step` bytes before `end`.
  void ExpectCutsRefused(size_t end, size_t step = 1) {
    for (size_t size = 0; size < end; size += step)
      EXPECT_NE(Try(std::string_view(whole_).substr(0, size)), "") << "cut at " << size;
  }

  // Each byte changed, in turn in one of several ways.
  void ChangeEveryByte(size_t step = 1) {
    constexpr int kChanges[] = {0x01, 0x80, 0xff, 0x08, 0x7e};
    for (size_t i = 0; i < whole_.size(); i += step) {
      std::string damaged = whole_;
      damaged[i] = static_cast<char>(damaged[i] ^ kChanges[i / step % 5]);
      Try(damaged);
    }
  }

  // A huge number at each place where a length could stand, of four and eight bytes and of either
  // order.
  void InflateEverywhere(size_t step = 1) {
    using namespace std::string_view_literals;
    for (const std::string_view number :
         {"\xff\xff\xff\xff"sv, "\xff\xff\xff\x7f"sv, "\x7f\xff\xff\xff"sv, "\0\0\0\0\0\0\0\x40"sv,
          "\x40\0\0\0\0\0\0\0"sv, "\xff\xff\xff\xff\xff\xff\xff\xff"sv}) {
      for (size_t i = 0; i + number.size() <= whole_.size(); i += step) {
        std::string damaged = whole_;
        Try(damaged.replace(i, number.size(), number));
      }
    }
  }

  // To be called at the end.
  void ExpectEnoughAndLittleMemory() const {
    EXPECT_GE(refused_, 200);
#ifndef __SANITIZE_ADDRESS__  // which keeps freed memory for a while
    const auto allowed = static_cast<int64_t>(1.5 * static_cast<double>(whole_.size()));
    EXPECT_LE(PeakMemoryBytes(),
              std::max(peak_before_, resident_before_ + allowed + (int64_t{256} << 20)));
#endif
  }

 private:
  std::string whole_;
  ParseBytes parse_;
  int64_t peak_before_, resident_before_;
  int refused_ = 0;
};

// The bytes of a number, little-endian.
template <class T>
std::string Bytes(T number) {
  return {reinterpret_cast<const char*>(&number), sizeof(number)};
}

// `whole` with the bytes that lie `skip` bytes behind the end of `key` replaced.
inline std::string WithBytes(std::string whole, std::string_view key, size_t skip,
                             std::string_view bytes) {
  const size_t at = whole.find(key);
  EXPECT_NE(at, std::string::npos) << key;
  return whole.replace(at + key.size() + skip, bytes.size(), bytes);
}

}  // namespace lwm::testing_support
