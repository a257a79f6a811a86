#include "lwm/io/video_reader.h"

extern "C" {
#include <libavutil/dict.h>
}

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <utility>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/format.h"
#include "lwm/io/ffmpeg_image.h"
#include "lwm/io/ffmpeg_input.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

std::atomic<int> video_threads = 1;

// Of the stream; since FFmpeg 6.1 it stands beside the codec's parameters.
const uint8_t* StreamDisplayMatrix(const AVStream& stream) {
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
  const AVPacketSideData* data =
      av_packet_side_data_get(stream.codecpar->coded_side_data, stream.codecpar->nb_coded_side_data,
                              AV_PKT_DATA_DISPLAYMATRIX);
  return data && data->size >= 9 * sizeof(int32_t) ? data->data : nullptr;
#else
  size_t size = 0;
  const uint8_t* data = av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
  return data && size >= 9 * sizeof(int32_t) ? data : nullptr;
#endif
}

// A frame may say it itself, as H.264 can.
Orientation OrientationOfFrame(const AVFrame& frame, const AVStream& stream) {
  const AVFrameSideData* own = av_frame_get_side_data(&frame, AV_FRAME_DATA_DISPLAYMATRIX);
  const uint8_t* matrix =
      own && own->size >= 9 * sizeof(int32_t) ? own->data : StreamDisplayMatrix(stream);
  return matrix ? OrientationOf(reinterpret_cast<const int32_t*>(matrix)) : Orientation::kUpright;
}

bool IsDamaged(const AVFrame& frame) {
  return frame.decode_error_flags != 0 || (frame.flags & AV_FRAME_FLAG_CORRUPT) != 0;
}

}  // namespace

void SetVideoThreads(int threads) {
  LWM_REQUIRE(threads >= 1, "video decoders with ", threads, " threads; want at least 1");
  video_threads = threads;
}

int VideoThreads() { return video_threads; }

struct VideoReader::State {
  explicit State(const fs::path& path) : where(path.string()), input(path) {}
  State(std::span<const std::byte> bytes, const std::string& name, const char* wanted)
      : where(name), input(bytes, name, wanted) {}

  void OpenDecoder();
  // Gives the decoder one more packet, or tells it that there is none.
  void Feed();
  void NoteError(int code);
  void TakeFrame();
  void FollowTime();
  void RequireWhole() const;
  double FramesPerSecond() const;
  double FrameSeconds() const;
  int64_t StatedFrames() const;
  bool IsShort() const;
  std::string FramesRead() const;

  std::string where;
  FfmpegInput input;
  CodecPointer decoder;
  PacketPointer packet{av_packet_alloc()};
  FramePointer frame{av_frame_alloc()};
  mutable FfmpegImage image;
  bool is_draining = false, is_at_end = false;
  int64_t grabbed = 0;
  int64_t errors = 0;  // frames with errors, and packets that gave none, after the first frame
  int last_error = 0;
  double first = 0, seconds = 0, apart = 0;
};

void VideoReader::State::OpenDecoder() {
  const AVCodecParameters& coded = *input.video().codecpar;
  const int64_t pixels = int64_t{coded.width} * coded.height;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, pixels <= kMostPixels, where, ": frames of ", coded.width,
                 " x ", coded.height, " pixels; the limit is ", kMostPixels, " pixels");
  decoder.reset(avcodec_alloc_context3(&input.decoder()));
  LWM_CHECK(decoder && packet && frame, "FFmpeg has no memory");
  decoder->pkt_timebase = input.video().time_base;
  decoder->thread_count = std::min(VideoThreads(), 16);
  // Streams may change their size: the decoder keeps the limit that the header was checked against.
  decoder->max_pixels = kMostPixels;
  int code = avcodec_parameters_to_context(decoder.get(), &coded);
  if (code >= 0) code = avcodec_open2(decoder.get(), &input.decoder(), nullptr);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, code >= 0, where,
                 ": the video cannot be decoded: ", FfmpegError(code));
}

void VideoReader::State::Feed() {
  int code = 0;
  if (input.Read(*packet)) {
    code = avcodec_send_packet(decoder.get(), packet.get());
  } else {
    is_draining = true;
    code = avcodec_send_packet(decoder.get(), nullptr);
  }
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, code != AVERROR(ENOMEM), where,
                 ": no memory to decode the video");
  if (code < 0) NoteError(code);
}

// Recordings may begin between two key frames: errors before the first frame are none.
void VideoReader::State::NoteError(int code) {
  errors += grabbed > 0;
  last_error = code;
}

void VideoReader::State::TakeFrame() {
  ++grabbed;
  errors += IsDamaged(*frame);
  FollowTime();
}

// The time of the frame grabbed last, since the first. Frames without a time, or with an earlier
// one, follow as far apart as the frames before.
void VideoReader::State::FollowTime() {
  const bool has_time = frame->best_effort_timestamp != AV_NOPTS_VALUE;
  const double now =
      has_time ? static_cast<double>(frame->best_effort_timestamp) * av_q2d(input.video().time_base)
               : first;
  if (grabbed == 1) {
    first = now;
    return;
  }
  if (now - first > seconds) apart = now - first - seconds;
  seconds += apart;
}

VideoReader::VideoReader(std::unique_ptr<State> state) : state_(std::move(state)) {
  state_->OpenDecoder();
  if (frames_per_second() > 0) state_->apart = 1 / frames_per_second();
}

VideoReader::VideoReader(const fs::path& path) : VideoReader(std::make_unique<State>(path)) {}

VideoReader::VideoReader(std::span<const std::byte> bytes, const std::string& where,
                         const char* wanted)
    : VideoReader(std::make_unique<State>(bytes, where, wanted)) {}

VideoReader::~VideoReader() = default;

double VideoReader::frames_per_second() const { return state_->FramesPerSecond(); }
int64_t VideoReader::stated_frames() const { return state_->StatedFrames(); }

double VideoReader::seconds() const { return state_->seconds; }

bool VideoReader::Grab() {
  State& state = *state_;
  constexpr int kMostErrorsAtTheEnd = 1000;  // a decoder may fail for ever
  for (int failed = 0; !state.is_at_end;) {
    // FFmpeg's decoders take packets and give frames independently: EAGAIN asks for a packet.
    const int code = avcodec_receive_frame(state.decoder.get(), state.frame.get());
    if (code >= 0) {
      state.TakeFrame();
      return true;
    }
    if (code == AVERROR(EAGAIN) && !state.is_draining) {
      state.Feed();
    } else if (code == AVERROR(EAGAIN) || code == AVERROR_EOF || ++failed == kMostErrorsAtTheEnd) {
      state.is_at_end = true;
    } else {
      state.NoteError(code);
    }
  }
  state.RequireWhole();
  return false;
}

double VideoReader::State::FramesPerSecond() const {
  const AVRational rate = av_guess_frame_rate(&input.format(), &input.video(), nullptr);
  return rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
}

double VideoReader::State::FrameSeconds() const {
  return FramesPerSecond() > 0 ? 1 / FramesPerSecond() : apart;
}

int64_t VideoReader::State::StatedFrames() const {
  if (input.video().nb_frames > 0) return input.video().nb_frames;
  const auto seconds_long = static_cast<double>(input.format().duration) / AV_TIME_BASE;
  const double frames = seconds_long * FramesPerSecond();
  return frames > 0 && frames < 1e12 ? std::llround(frames) : 0;
}

// "32 of 60 frames (3.2 of 6.0 s)", or of an unknown number "32 frames (3.2 s)".
std::string VideoReader::State::FramesRead() const {
  const double read = grabbed > 0 ? seconds + FrameSeconds() : 0;
  const double stated =
      std::max(input.stated_seconds(), static_cast<double>(StatedFrames()) * FrameSeconds());
  if (StatedFrames() <= grabbed || stated <= read)
    return fmt::format("{} ({:.1f} s)", CountOf(grabbed, "frame"), read);
  return fmt::format("{} of {} ({:.1f} of {:.1f} s)", grabbed, CountOf(StatedFrames(), "frame"),
                     read, stated);
}

// The header promises more than was read, though nothing broke off. Headers round times, count
// frames that an edit list leaves out, and do not always know how long the last frame is shown.
bool VideoReader::State::IsShort() const {
  const double missing = input.stated_seconds() - input.reached_seconds();
  if (input.stated_seconds() == 0) return false;
  if (input.video().nb_frames > 0)
    return grabbed < input.video().nb_frames && missing > 0.75 * FrameSeconds();
  return missing > (input.last_has_duration() ? 2 * FrameSeconds()
                                              : std::max(1.0, 0.05 * input.stated_seconds()));
}

void VideoReader::State::RequireWhole() const {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, !input.breaks_off(), where,
                 ": the video is truncated or damaged: it breaks off after ", FramesRead());
  LWM_REQUIRE_AS(
      ErrorCode::kCorruptData, grabbed > 0 || last_error == 0, where,
      ": no frame of the video can be decoded: it is damaged or truncated, or its frames "
      "have more than the ",
      kMostPixels, " pixels that are the limit (", FfmpegError(last_error), ")");
}

RgbImage VideoReader::Retrieve() const {
  const State& state = *state_;
  LWM_CHECK(state.grabbed > 0 && !state.is_at_end, "no frame was grabbed");
  AVFormatContext& format = state.input.format();
  AVStream& stream = state.input.video();
  const AVRational aspect = av_guess_sample_aspect_ratio(&format, &stream, state.frame.get());
  return TurnUpright(state.image.Convert(*state.frame, aspect, state.where),
                     OrientationOfFrame(*state.frame, stream));
}

std::string VideoReader::warning() const {
  const State& state = *state_;
  if (!state.is_at_end) return "";
  if (state.errors > 0)
    return Cat(state.where, ": the video is damaged or truncated: ", state.errors, " of ",
               CountOf(state.grabbed, "frame"), " with errors");
  if (state.IsShort())
    return Cat(state.where, ": the video is shorter than its header says, perhaps truncated: ",
               state.FramesRead());
  return "";
}

int64_t CountFrames(const fs::path& path, const std::function<bool(const VideoReader&)>& counts,
                    std::string* warning) {
  VideoReader reader(path);
  int64_t frames = 0;
  while (reader.Grab()) frames += !counts || counts(reader);
  if (warning) *warning = reader.warning();
  return frames;
}

std::vector<int64_t> UniformFrames(int64_t frames, int64_t wanted) {
  LWM_REQUIRE(frames >= 1 && wanted >= 1, "cannot choose ", wanted, " of ", frames, " frames");
  const int64_t count = std::min(frames, wanted);
  std::vector<int64_t> chosen;
  const double step =
      count > 1 ? static_cast<double>(frames - 1) / static_cast<double>(count - 1) : 0;
  for (int64_t i = 0; i < count; ++i)
    chosen.push_back(static_cast<int64_t>(static_cast<double>(i) * step));
  if (count > 1) chosen.back() = frames - 1;
  return chosen;
}

}  // namespace lwm::io
