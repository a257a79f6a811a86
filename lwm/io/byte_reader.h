#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "lwm/base/error.h"

namespace lwm::io {

// A cursor over bytes that never leaves them. Every read throws Error(kCorruptData) naming the
// source and the position when fewer bytes are left than asked for.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string where)
      : bytes_(bytes), where_(std::move(where)) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  bool at_end() const { return remaining() == 0; }
  const std::string& where() const { return where_; }

  std::span<const std::byte> Bytes(uint64_t count) {
    if (count > remaining()) ThrowTruncated(count);
    const auto bytes = bytes_.subspan(position_, count);
    position_ += count;
    return bytes;
  }
  std::string_view Text(uint64_t count) {
    const auto bytes = Bytes(count);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  // A little-endian number.
  template <class T>
  T Number() {
    T value;
    std::memcpy(&value, Bytes(sizeof(T)).data(), sizeof(T));
    return value;
  }
  // A big-endian unsigned number.
  template <class T>
  T BigEndian() {
    T value = 0;
    for (const std::byte byte : Bytes(sizeof(T)))
      value = static_cast<T>((value << 8) | static_cast<T>(byte));
    return value;
  }
  void Seek(uint64_t position) {
    Require(position <= bytes_.size(), "position ", position, " is outside the file");
    position_ = position;
  }

  // Throws Error(kCorruptData) "where: message (at byte N)"; the parts are joined only then.
  template <class... Parts>
  [[noreturn]] void Fail(const Parts&... parts) const {
    throw Error(ErrorCode::kCorruptData, Cat(where_, ": ", parts..., " (at byte ", position_, ")"));
  }
  template <class... Parts>
  void Require(bool condition, const Parts&... parts) const {
    if (!condition) Fail(parts...);
  }

 private:
  [[noreturn]] void ThrowTruncated(uint64_t wanted) const {
    Fail("truncated: ", wanted, " bytes wanted, ", remaining(), " left");
  }

  std::span<const std::byte> bytes_;
  std::string where_;
  size_t position_ = 0;
};

}  // namespace lwm::io
