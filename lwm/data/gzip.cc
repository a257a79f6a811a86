#include "lwm/data/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>
#include <vector>

#include "lwm/base/error.h"

namespace lwm::data {
namespace {

constexpr size_t kPieceBytes = 1 << 18;

// One member after the other of a packed content.
class Inflater {
 public:
  explicit Inflater(std::string_view packed) : left_(packed), piece_(kPieceBytes) {
    constexpr int kGzipWindow = 15 + 16;  // the largest window, gzip headers only
    if (inflateInit2(&stream_, kGzipWindow) != Z_OK) throw std::bad_alloc();
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // The next bytes, at most kPieceBytes; empty at the end of all members. Throws
  // Error(kCorruptData) naming `where`.
  std::string_view Next(const std::string& where) {
    while (!ended_) {
      const size_t size = Inflate(where);
      unpacked_ += size;
      if (size > 0) return {reinterpret_cast<const char*>(piece_.data()), size};
    }
    return {};
  }

 private:
  size_t Inflate(const std::string& where) {
    const size_t offered = std::min<size_t>(left_.size(), std::numeric_limits<unsigned int>::max());
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(left_.data()));
    stream_.avail_in = static_cast<uInt>(offered);
    stream_.next_out = piece_.data();
    stream_.avail_out = static_cast<uInt>(piece_.size());
    const int result = inflate(&stream_, Z_NO_FLUSH);
    left_.remove_prefix(offered - stream_.avail_in);
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, result != Z_DATA_ERROR && result != Z_NEED_DICT, where,
                   ": a damaged gzip file (", stream_.msg ? stream_.msg : "unknown", "), after ",
                   unpacked_, " bytes of content");
    if (result == Z_MEM_ERROR) throw std::bad_alloc();
    const size_t size = piece_.size() - stream_.avail_out;
    if (result == Z_STREAM_END)
      EndMember(where);
    else
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, size > 0 || !left_.empty(), where,
                     ": a truncated gzip file, which ends after ", unpacked_,
                     " bytes of content; get the file anew");
    return size;
  }

  void EndMember(const std::string& where) {
    if (left_.starts_with("\x1F\x8B")) {
      inflateReset(&stream_);
      return;
    }
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, left_.find_first_not_of('\0') == left_.npos, where,
                   ": a gzip file with ", left_.size(), " bytes behind its end");
    ended_ = true;
  }

  z_stream stream_{};
  std::string_view left_;
  std::vector<Bytef> piece_;
  uint64_t unpacked_ = 0;
  bool ended_ = false;
};

}  // namespace

void UnpackGzip(std::string_view packed, const std::string& where,
                const std::function<void(std::string_view piece)>& sink) {
  Inflater inflater(packed);
  for (auto piece = inflater.Next(where); !piece.empty(); piece = inflater.Next(where)) sink(piece);
}

std::string UnpackGzipHead(std::string_view packed, size_t limit) {
  std::string head;
  try {
    Inflater inflater(packed);
    while (head.size() < limit) {
      const std::string_view piece = inflater.Next("");
      if (piece.empty()) break;
      head += piece.substr(0, limit - head.size());
    }
  } catch (const Error&) {  // reported when the content is read to its end
  }
  return head;
}

}  // namespace lwm::data
