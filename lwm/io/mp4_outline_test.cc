#include "lwm/io/mp4_outline.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lwm::io {
namespace {

std::string Number(uint64_t value, int bytes = 4) {
  std::string text;
  for (int byte = bytes; byte-- > 0;) text += static_cast<char>(value >> (8 * byte) & 255);
  return text;
}

std::string Box(const std::string& type, const std::string& body) {
  return Number(body.size() + 8) + type + body;
}

// A movie or media header: version and flags, two times, units per second, duration.
std::string DurationHeader(uint64_t units_per_second, uint64_t units) {
  return Number(0) + Number(0, 8) + Number(units_per_second) + Number(units);
}

std::string TrackHeader(const std::vector<int32_t>& matrix) {
  std::string header(40, '\0');
  for (const int32_t entry : matrix) header += Number(static_cast<uint32_t>(entry));
  return Box("tkhd", header);
}

struct Movie {
  std::vector<int32_t> matrix = {65536, 0, 0, 0, 65536};
  std::string edits = {};  // of 1000 units a second; the media lasts 10 s
  std::string more = {};   // boxes of the movie
};

std::string Track(const std::string& handler, const Movie& movie) {
  std::string track = TrackHeader(movie.matrix);
  if (!movie.edits.empty()) track += Box("edts", Box("elst", movie.edits));
  return Box("trak", track + Box("mdia", Box("mdhd", DurationHeader(90000, 900000)) +
                                             Box("hdlr", Number(0, 8) + handler)));
}

// A sound track before the video, which must not be taken for it.
std::string File(const Movie& movie) {
  return Box("ftyp", "isom") + Box("mdat", std::string(100, 'x')) +
         Box("moov", Box("mvhd", DurationHeader(1000, 10000)) +
                         Track("soun", {.matrix = {-65536, 0, 0, 0, -65536}}) +
                         Track("vide", movie) + movie.more);
}

Mp4Outline Outline(const std::string& file) {
  return ReadMp4Outline(std::as_bytes(std::span(file)));
}

std::string Edit(uint32_t milliseconds, uint32_t from) {
  return Number(milliseconds) + Number(from) + Number(65536);
}

TEST(Mp4OutlineTest, TurnIsThatOfTheVideoTrack) {
  const auto turn = [](const std::vector<int32_t>& matrix) {
    return Outline(File({.matrix = matrix})).turn_degrees;
  };
  EXPECT_EQ(turn({65536, 0, 0, 0, 65536}), 0);
  EXPECT_EQ(turn({0, 65536, 0, -65536, 0}), 90);
  EXPECT_EQ(turn({-65536, 0, 0, 0, -65536}), 180);
  EXPECT_EQ(turn({0, -65536, 0, 65536, 0}), 270);
  EXPECT_EQ(turn({-65536, 0, 0, 0, 65536}), 0);  // mirrored
}

TEST(Mp4OutlineTest, EditsThatLeaveOutFramesTrim) {
  const auto trimmed = [](const std::string& edits) {
    return Outline(File({.edits = edits})).is_trimmed;
  };
  EXPECT_FALSE(trimmed(""));
  EXPECT_FALSE(trimmed(Number(0) + Number(1) + Edit(10000, 1024)));
  EXPECT_FALSE(trimmed(Number(0) + Number(1) + Edit(0, 0)));
  EXPECT_TRUE(trimmed(Number(0) + Number(1) + Edit(3000, 450000)));
  EXPECT_TRUE(trimmed(Number(0) + Number(2) + Edit(9000, UINT32_MAX) + Edit(3000, 0)));
  EXPECT_TRUE(trimmed(Number(1 << 24) + Number(1) + Number(3000, 8) + Number(0, 8) + Number(1)));
}

TEST(Mp4OutlineTest, FileThatEndsInsideItsMediaIsTruncated) {
  const std::string file = File({}), movie = file.substr(file.find("moov") - 4);
  EXPECT_FALSE(Outline(file).is_truncated);
  EXPECT_TRUE(Outline(movie + Box("mdat", "frames").substr(0, 12)).is_truncated);
  EXPECT_FALSE(Outline(movie + Number(0) + "mdat" + "to the end").is_truncated);
  const std::string wide = Number(1) + "mdat" + Number(1 << 20, 8);
  EXPECT_TRUE(Outline(movie + wide + "frames").is_truncated);
  EXPECT_TRUE(Outline(movie + wide).has_table);
}

TEST(Mp4OutlineTest, FragmentsHaveNoTable) {
  EXPECT_TRUE(Outline(File({})).has_table);
  const Mp4Outline outline = Outline(File({.more = Box("mvex", "")}));
  EXPECT_TRUE(outline.has_video);
  EXPECT_FALSE(outline.has_table);
}

TEST(Mp4OutlineTest, OtherAndDamagedFilesHaveNone) {
  const std::string file = File({.edits = Number(0) + Number(1) + Edit(3000, 450000)});
  EXPECT_TRUE(Outline(file).has_video);
  for (size_t bytes = 0; bytes < file.size() - 1; ++bytes) Outline(file.substr(0, bytes));
  for (const std::string& other : {std::string(), std::string("GIF89a\0\0\0\0", 10),
                                   Number(4) + "mdat", Box("moov", Number(2) + "trak")})
    EXPECT_FALSE(Outline(other).has_video);
}

}  // namespace
}  // namespace lwm::io
