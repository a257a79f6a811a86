#include "lwm/io/mp4_outline.h"

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "lwm/base/error.h"
#include "lwm/io/byte_reader.h"

namespace lwm::io {
namespace {

using Bytes = std::span<const std::byte>;

struct Box {
  std::string_view type;
  Bytes body;
  bool is_whole = true;  // false: the file ends inside it
};

// The next box, or nothing at the end.
std::optional<Box> NextBox(ByteReader& in) {
  constexpr uint64_t kSizeFollows = 1, kToTheEnd = 0;
  if (in.remaining() < 8) return {};
  const size_t begin = in.position();
  uint64_t size = in.BigEndian<uint32_t>();
  Box box;
  box.type = in.Text(4);
  if (size == kSizeFollows) size = in.BigEndian<uint64_t>();
  const size_t header = in.position() - begin;
  if (size == kToTheEnd) size = header + in.remaining();
  in.Require(size >= header, "box below its header");
  box.is_whole = size - header <= in.remaining();
  box.body = in.Bytes(box.is_whole ? size - header : in.remaining());
  return box;
}

ByteReader Reader(Bytes bytes) { return {bytes, "MP4"}; }

// The first box of that path inside `bytes`, or nothing.
std::optional<Bytes> Find(Bytes bytes, std::initializer_list<std::string_view> path) {
  for (const std::string_view type : path) {
    ByteReader in = Reader(bytes);
    std::optional<Box> box = NextBox(in);
    while (box && box->type != type) box = NextBox(in);
    if (!box) return {};
    bytes = box->body;
  }
  return bytes;
}

struct Duration {
  uint64_t units = 0, units_per_second = 0;
};

// Of a movie or media header, which begin alike.
Duration ReadDuration(Bytes header) {
  ByteReader in = Reader(header);
  const bool is_wide = in.Number<uint8_t>() == 1;
  in.Bytes(3);
  in.Bytes(is_wide ? 16 : 8);  // times of creation and change
  Duration duration;
  duration.units_per_second = in.BigEndian<uint32_t>();
  duration.units = is_wide ? in.BigEndian<uint64_t>() : in.BigEndian<uint32_t>();
  return duration;
}

// Of the track header, whose matrix (a b c d, with a third column between) maps a stored point to
// (a x + c y, b x + d y). Mirrored and slanted pictures are left as they are.
int ReadTurn(Bytes header) {
  ByteReader in = Reader(header);
  const bool is_wide = in.Number<uint8_t>() == 1;
  in.Bytes(is_wide ? 51 : 39);
  std::array<int32_t, 5> matrix = {};
  for (int32_t& entry : matrix) entry = static_cast<int32_t>(in.BigEndian<uint32_t>());
  const auto sign = [](int32_t entry) { return (entry > 0) - (entry < 0); };
  const int a = sign(matrix[0]), b = sign(matrix[1]), c = sign(matrix[3]), d = sign(matrix[4]);
  if (a == 0 && d == 0 && b == -c && b != 0) return b > 0 ? 90 : 270;
  return b == 0 && c == 0 && a == -1 && d == -1 ? 180 : 0;
}

// What the edit list shows of the media, in units of the movie; empty edits only delay it.
uint64_t ShownUnits(Bytes list) {
  ByteReader in = Reader(list);
  const bool is_wide = in.Number<uint8_t>() == 1;
  in.Bytes(3);
  uint64_t shown = 0;
  for (uint32_t left = in.BigEndian<uint32_t>(); left > 0; --left) {
    const uint64_t units = is_wide ? in.BigEndian<uint64_t>() : in.BigEndian<uint32_t>();
    const bool is_empty =
        is_wide ? in.BigEndian<uint64_t>() == UINT64_MAX : in.BigEndian<uint32_t>() == UINT32_MAX;
    in.Bytes(4);
    if (!is_empty) shown += units;
  }
  return shown;
}

bool IsTrimmed(Bytes movie, Bytes track) {
  constexpr double kWhole = 0.98;  // durations are rounded
  const auto edits = Find(track, {"edts", "elst"});
  const auto movie_header = Find(movie, {"mvhd"}), media_header = Find(track, {"mdia", "mdhd"});
  if (!edits || !movie_header || !media_header) return false;
  const uint64_t shown = ShownUnits(*edits);
  const Duration media = ReadDuration(*media_header);
  // An edit of no length shows all.
  if (shown == 0 || media.units == 0 || media.units_per_second == 0) return false;
  const auto units_per_second = static_cast<double>(ReadDuration(*movie_header).units_per_second);
  const double seconds =
      static_cast<double>(media.units) / static_cast<double>(media.units_per_second);
  return static_cast<double>(shown) < kWhole * seconds * units_per_second;
}

bool IsVideoTrack(Bytes track) {
  const auto handler = Find(track, {"mdia", "hdlr"});
  if (!handler) return false;
  ByteReader in = Reader(*handler);
  in.Bytes(8);
  return in.Text(4) == "vide";
}

void ReadMovie(Bytes movie, Mp4Outline& outline) {
  ByteReader in = Reader(movie);
  bool is_fragmented = false;
  while (const auto box = NextBox(in)) {
    is_fragmented |= box->type == "mvex";
    if (box->type != "trak" || outline.has_video || !IsVideoTrack(box->body)) continue;
    outline.has_video = true;
    outline.is_trimmed = IsTrimmed(movie, box->body);
    if (const auto header = Find(box->body, {"tkhd"})) outline.turn_degrees = ReadTurn(*header);
  }
  outline.has_table = outline.has_video && !is_fragmented;
}

}  // namespace

Mp4Outline ReadMp4Outline(Bytes file) {
  Mp4Outline outline;
  try {
    ByteReader in = Reader(file);
    while (const auto box = NextBox(in)) {
      if (box->type == "mdat" && !box->is_whole) outline.is_truncated = true;
      if (box->type == "moov") ReadMovie(box->body, outline);
    }
  } catch (const Error&) {  // no boxes, or damaged ones: the decoder decides
    return {};
  }
  return outline;
}

}  // namespace lwm::io
