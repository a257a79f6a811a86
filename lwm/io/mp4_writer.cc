#include "lwm/io/mp4_writer.h"

extern "C" {
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
}

#include <algorithm>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/ffmpeg.h"
#include "lwm/io/video_reader.h"

namespace lwm::io {
namespace fs = std::filesystem;
namespace {

// Odd sides are one pixel longer, the last one twice.
std::vector<uint8_t> Widened(const RgbImage& frame, int64_t width, int64_t height) {
  std::vector<uint8_t> rgb_HWC(static_cast<size_t>(3 * width * height));
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* row = frame.rgb_HWC.data() + 3 * frame.width * std::min(y, frame.height - 1);
    uint8_t* to = std::copy_n(row, 3 * frame.width, rgb_HWC.data() + 3 * width * y);
    if (width > frame.width) std::copy_n(row + 3 * (frame.width - 1), 3, to);
  }
  return rgb_HWC;
}

}  // namespace

struct Mp4Writer::State {
  ~State() {
    if (format) avio_closep(&format->pb);
    avformat_free_context(format);
    sws_freeContext(scaler);
  }

  void Open(const RgbImage& first);
  void OpenEncoder(const AVCodec& encoder);
  void OpenFile();
  // Writes the packets that the encoder has ready.
  void WritePackets();
  // Throws unless a step of FFmpeg went well.
  void RequireWritten(int code) const;

  fs::path path, temporary;
  double rate = 0;
  int64_t width = 0, height = 0, frames = 0;
  AVFormatContext* format = nullptr;
  AVStream* stream = nullptr;
  SwsContext* scaler = nullptr;
  CodecPointer codec;
  FramePointer frame{av_frame_alloc()};
  PacketPointer packet{av_packet_alloc()};
  bool finished = false;
};

void Mp4Writer::State::RequireWritten(int code) const {
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, code >= 0, path.string(),
                 ": not all frames could be written (", FfmpegError(code), "); is the disk full?");
}

void Mp4Writer::State::OpenEncoder(const AVCodec& encoder) {
  codec.reset(avcodec_alloc_context3(&encoder));
  LWM_CHECK(codec && frame && packet, "FFmpeg has no memory");
  codec->width = static_cast<int>(width + width % 2);
  codec->height = static_cast<int>(height + height % 2);
  codec->pix_fmt = AV_PIX_FMT_YUV420P;
  codec->framerate = av_d2q(rate, 1001000);
  codec->time_base = av_inv_q(codec->framerate);
  codec->thread_count = VideoThreads();
  // MP4 keeps the codec's parameters in its header, not in the stream.
  codec->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  codec->color_range = AVCOL_RANGE_MPEG;
  codec->colorspace = AVCOL_SPC_BT709;
  codec->color_primaries = AVCOL_PRI_BT709;
  codec->color_trc = AVCOL_TRC_BT709;
  av_opt_set(codec->priv_data, "crf", "23", 0);
  LWM_REQUIRE(avcodec_open2(codec.get(), &encoder, nullptr) >= 0, path.string(),
              ": FFmpeg's H.264 encoder does not take frames of ", width, " x ", height, " at ",
              rate, " a second");
}

void Mp4Writer::State::OpenFile() {
  LWM_CHECK(avformat_alloc_output_context2(&format, nullptr, "mp4", nullptr) >= 0, "no MP4 muxer");
  stream = avformat_new_stream(format, nullptr);
  LWM_CHECK(stream && avcodec_parameters_from_context(stream->codecpar, codec.get()) >= 0,
            "MP4 stream");
  stream->time_base = codec->time_base;
  stream->avg_frame_rate = codec->framerate;
  // FFmpeg takes the part before a colon for a protocol.
  const std::string name = "file:" + fs::absolute(temporary).string();
  const int code = avio_open(&format->pb, name.c_str(), AVIO_FLAG_WRITE);
  LWM_REQUIRE(code >= 0, path.string(), ": cannot be written: ", FfmpegError(code));
  RequireWritten(avformat_write_header(format, nullptr));
}

void Mp4Writer::State::Open(const RgbImage& first) {
  LWM_REQUIRE(first.width > 0 && first.height > 0, "an image without pixels cannot be written");
  width = first.width;
  height = first.height;
  const AVCodec* encoder = avcodec_find_encoder(AV_CODEC_ID_H264);
  LWM_REQUIRE(encoder != nullptr, path.string(),
              ": this FFmpeg has no H.264 encoder; write a .gif or a folder of images");
  OpenEncoder(*encoder);
  OpenFile();
  frame->width = codec->width;
  frame->height = codec->height;
  frame->format = codec->pix_fmt;
  frame->colorspace = codec->colorspace;
  frame->color_range = codec->color_range;
  scaler = sws_getContext(codec->width, codec->height, AV_PIX_FMT_RGB24, codec->width,
                          codec->height, codec->pix_fmt, SWS_BICUBIC, nullptr, nullptr, nullptr);
  LWM_CHECK(scaler && av_frame_get_buffer(frame.get(), 0) >= 0, "FFmpeg has no memory");
  const int* matrix = sws_getCoefficients(SWS_CS_ITU709);
  sws_setColorspaceDetails(scaler, matrix, 1, matrix, 0, 0, 1 << 16, 1 << 16);
}

void Mp4Writer::State::WritePackets() {
  for (;;) {
    const int code = avcodec_receive_packet(codec.get(), packet.get());
    if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
    RequireWritten(code);
    av_packet_rescale_ts(packet.get(), codec->time_base, stream->time_base);
    packet->stream_index = stream->index;
    RequireWritten(av_interleaved_write_frame(format, packet.get()));
  }
}

Mp4Writer::Mp4Writer(const fs::path& path, double frames_per_second)
    : state_(std::make_unique<State>()) {
  PrepareFfmpeg();
  LWM_REQUIRE(frames_per_second > 0 && frames_per_second <= 1000, path.string(), ": ",
              frames_per_second, " frames per second; want more than 0, at most 1000");
  state_->path = path;
  state_->temporary = TemporaryBeside(path, ".mp4");
  state_->rate = frames_per_second;
}

Mp4Writer::~Mp4Writer() {
  if (state_->finished) return;
  const fs::path temporary = state_->temporary;
  state_.reset();  // closes the file
  std::error_code ignored;
  fs::remove(temporary, ignored);
}

void Mp4Writer::Add(const RgbImage& image) {
  State& state = *state_;
  if (state.width == 0) state.Open(image);
  LWM_REQUIRE(image.width == state.width && image.height == state.height, state.path.string(),
              ": a frame of ", image.width, " x ", image.height, " in a video of ", state.width,
              " x ", state.height);
  // The encoder may still hold the frame before.
  state.RequireWritten(av_frame_make_writable(state.frame.get()));
  const std::vector<uint8_t> rgb_HWC = Widened(image, state.codec->width, state.codec->height);
  const uint8_t* const planes[] = {rgb_HWC.data()};
  const int strides[] = {3 * state.codec->width};
  sws_scale(state.scaler, planes, strides, 0, state.codec->height, state.frame->data,
            state.frame->linesize);
  state.frame->pts = state.frames++;
  state.RequireWritten(avcodec_send_frame(state.codec.get(), state.frame.get()));
  state.WritePackets();
}

void Mp4Writer::Finish() {
  State& state = *state_;
  LWM_REQUIRE(state.width > 0, state.path.string(), ": a video of no frames was asked for");
  // No frame: the encoder gives out those that it held back to order them.
  state.RequireWritten(avcodec_send_frame(state.codec.get(), nullptr));
  state.WritePackets();
  state.RequireWritten(av_write_trailer(state.format));
  state.RequireWritten(avio_closep(&state.format->pb));
  SyncPath(state.temporary);
  RenameAndSync(state.temporary, state.path);
  state.finished = true;
}

}  // namespace lwm::io
