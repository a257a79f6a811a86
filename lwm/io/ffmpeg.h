#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/error.h>
#include <libavutil/frame.h>
}

#include <array>
#include <memory>
#include <string>

namespace lwm::io {

// Owners of FFmpeg's objects, for the few files that use its libraries.
struct FfmpegDelete {
  void operator()(AVFrame* frame) const { av_frame_free(&frame); }
  void operator()(AVPacket* packet) const { av_packet_free(&packet); }
  void operator()(AVCodecContext* codec) const { avcodec_free_context(&codec); }
};
using FramePointer = std::unique_ptr<AVFrame, FfmpegDelete>;
using PacketPointer = std::unique_ptr<AVPacket, FfmpegDelete>;
using CodecPointer = std::unique_ptr<AVCodecContext, FfmpegDelete>;

inline std::string FfmpegError(int code) {
  std::array<char, AV_ERROR_MAX_STRING_SIZE> text = {};
  av_strerror(code, text.data(), text.size());
  return text.data();
}

// Process-wide and done once: FFmpeg prints nothing, and no single allocation of it passes 1 GiB.
void PrepareFfmpeg();

}  // namespace lwm::io
