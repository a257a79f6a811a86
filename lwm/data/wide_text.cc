#include "lwm/data/wide_text.h"

#include <cstdint>

#include "lwm/base/error.h"

namespace lwm::data {
namespace {

using Form = ContentKind::Form;

constexpr size_t kPieceBytes = 1 << 16;

class WideReader {
 public:
  WideReader(std::string_view bytes, Form form, const std::string& where)
      : bytes_(bytes),
        unit_bytes_(form == Form::kUtf16Le || form == Form::kUtf16Be ? 2 : 4),
        is_little_(form == Form::kUtf16Le || form == Form::kUtf32Le),
        at_(unit_bytes_),  // behind the byte order mark
        where_(where) {}

  bool is_at_end() const { return at_ >= bytes_.size(); }

  uint32_t NextCharacter() {
    const size_t begin = at_;
    const uint32_t unit = NextUnit();
    const bool leads = unit >= 0xD800 && unit < 0xDC00;
    if (unit_bytes_ == 2 && leads && !is_at_end()) {
      const uint32_t trail = NextUnit();
      if (trail >= 0xDC00 && trail < 0xE000)
        return 0x10000 + ((unit - 0xD800) << 10) + (trail - 0xDC00);
    }
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, unit < 0x110000 && (unit < 0xD800 || unit >= 0xE000),
                   where_, ": byte ", begin, " begins no character of ", name());
    return unit;
  }

 private:
  const char* name() const { return unit_bytes_ == 2 ? "UTF-16" : "UTF-32"; }

  uint32_t NextUnit() {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, bytes_.size() - at_ >= unit_bytes_, where_,
                   ": ends within a character of ", name(), "; it is truncated");
    uint32_t unit = 0;
    for (size_t i = 0; i < unit_bytes_; ++i) {
      const size_t shift = 8 * (is_little_ ? i : unit_bytes_ - 1 - i);
      unit |= uint32_t{static_cast<uint8_t>(bytes_[at_ + i])} << shift;
    }
    at_ += unit_bytes_;
    return unit;
  }

  std::string_view bytes_;
  size_t unit_bytes_;
  bool is_little_;
  size_t at_;
  const std::string& where_;
};

void AppendUtf8(uint32_t character, std::string& text) {
  const auto add = [&](uint32_t byte) { text += static_cast<char>(byte); };
  const auto tail = [&](int shift) { add(0x80 | (character >> shift & 0x3F)); };
  if (character < 0x80) return add(character);
  if (character < 0x800) {
    add(0xC0 | character >> 6);
    return tail(0);
  }
  if (character < 0x10000) {
    add(0xE0 | character >> 12);
    tail(6);
    return tail(0);
  }
  add(0xF0 | character >> 18);
  tail(12);
  tail(6);
  tail(0);
}

}  // namespace

void ConvertToUtf8(std::string_view bytes, Form form, const std::string& where,
                   const std::function<void(std::string_view piece)>& sink) {
  WideReader reader(bytes, form, where);
  std::string piece;
  while (!reader.is_at_end()) {
    AppendUtf8(reader.NextCharacter(), piece);
    if (piece.size() < kPieceBytes) continue;
    sink(piece);
    piece.clear();
  }
  if (!piece.empty()) sink(piece);
}

}  // namespace lwm::data
