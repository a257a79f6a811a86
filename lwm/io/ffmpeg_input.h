#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "lwm/io/ffmpeg.h"

namespace lwm::io {

// The packets of the video stream of a file, whose format is found by its content. No other file or
// address that it names is ever opened. Not for concurrent use.
class FfmpegInput {
 public:
  // Throws Error(kNotFound) when the file cannot be opened, Error(kCorruptData) when it is no
  // video: not of a known format, without a decoder, or with sound (and a cover image) only.
  explicit FfmpegInput(const std::filesystem::path& path);
  // The same of bytes in memory, which must outlive it; `where` names them in errors, `wanted` what
  // they should be.
  FfmpegInput(std::span<const std::byte> bytes, const std::string& where,
              const char* wanted = "a video");
  ~FfmpegInput();
  FfmpegInput(const FfmpegInput&) = delete;
  FfmpegInput& operator=(const FfmpegInput&) = delete;

  // Puts the next packet of the video there; false at the end.
  bool Read(AVPacket& packet);

  AVFormatContext& format() const;
  AVStream& video() const;
  const AVCodec& decoder() const;
  // End of the packets read so far, of all streams, by their time stamps; 0 before the first.
  double reached_seconds() const;
  // Duration by the container's header, which is not always right; 0 when the header has
  // none.
  double stated_seconds() const;
  // Known at the end: the demuxer met an error, or the file ends inside a packet.
  bool breaks_off() const;
  // Known at the end: the last packet of the video has a duration.
  bool last_has_duration() const;

  // FFmpeg's log goes here; for PrepareFfmpeg.
  static void NoteLog(void* source, int level, const char* format, va_list arguments);

 private:
  struct State;
  void Open(const std::string& where, const char* wanted);
  void ChooseVideo(const std::string& where, const char* wanted);
  void Follow(const AVPacket& packet);
  bool EndsInTransportPacket() const;
  std::unique_ptr<State> state_;
};

}  // namespace lwm::io
