#include "lwm/io/ffmpeg_input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

extern "C" {
#include <libavutil/log.h>
#include <libavutil/mem.h>
}

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <string_view>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/git_lfs.h"

namespace lwm::io {
namespace fs = std::filesystem;
namespace {

// A file, or bytes in memory, for FFmpeg to read.
struct Bytes {
  int descriptor = -1;
  std::span<const std::byte> memory;
  int64_t size = 0, position = 0;
};

int ReadBytes(void* opaque, uint8_t* to, int wanted) {
  auto& bytes = *static_cast<Bytes*>(opaque);
  const int64_t count = std::min<int64_t>(wanted, bytes.size - bytes.position);
  if (count <= 0) return AVERROR_EOF;
  ssize_t read = count;
  if (bytes.descriptor >= 0)
    read = pread(bytes.descriptor, to, static_cast<size_t>(count), bytes.position);
  else
    std::memcpy(to, bytes.memory.data() + bytes.position, static_cast<size_t>(count));
  if (read < 0) return AVERROR(errno);
  if (read == 0) return AVERROR_EOF;
  bytes.position += read;
  return static_cast<int>(read);
}

int64_t SeekBytes(void* opaque, int64_t offset, int whence) {
  auto& bytes = *static_cast<Bytes*>(opaque);
  switch (whence & ~AVSEEK_FORCE) {
    case AVSEEK_SIZE:
      return bytes.size;
    case SEEK_SET:
      break;
    case SEEK_CUR:
      offset += bytes.position;
      break;
    case SEEK_END:
      offset += bytes.size;
      break;
    default:
      return AVERROR(EINVAL);
  }
  if (offset < 0) return AVERROR(EINVAL);
  return bytes.position = offset;
}

// Playlists and references to other files are not followed.
int RefuseOther(AVFormatContext*, AVIOContext**, const char*, int, AVDictionary**) {
  return AVERROR(EACCES);
}

bool IsCover(const AVStream& stream) {
  return (stream.disposition & (AV_DISPOSITION_ATTACHED_PIC | AV_DISPOSITION_TIMED_THUMBNAILS)) !=
         0;
}

}  // namespace

struct FfmpegInput::State {
  ~State() {
    avformat_close_input(&format);
    if (io) av_freep(&io->buffer);
    avio_context_free(&io);
    if (bytes.descriptor >= 0) close(bytes.descriptor);
  }

  Bytes bytes;
  AVIOContext* io = nullptr;
  AVFormatContext* format = nullptr;
  AVStream* video = nullptr;
  const AVCodec* decoder = nullptr;
  // A packet in the middle may be marked for a gap before it, the last one of a stream is cut.
  bool EndsInPacket() const {
    return std::find(last_is_corrupt.begin(), last_is_corrupt.end(), true) != last_is_corrupt.end();
  }

  double reached = 0;
  std::vector<bool> last_is_corrupt;  // of every stream
  bool breaks_off = false, last_has_duration = false;
  bool ended_early = false;  // by the demuxer's own words
};

// Prints nothing. The Matroska demuxer reports a file that is too short only here, not by a code.
void FfmpegInput::NoteLog(void* source, int, const char* format, va_list) {
  if (!source || *static_cast<const AVClass* const*>(source) != avformat_get_class()) return;
  if (auto* state = static_cast<State*>(static_cast<AVFormatContext*>(source)->opaque))
    state->ended_early |= std::string_view(format).find("prematurely") != std::string_view::npos;
}

FfmpegInput::FfmpegInput(const fs::path& path) : state_(std::make_unique<State>()) {
  Bytes& bytes = state_->bytes;
  // Not waiting: a named pipe would hold us until somebody writes to it.
  bytes.descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  LWM_REQUIRE_AS(ErrorCode::kNotFound, bytes.descriptor >= 0, "cannot read ", path.string(), ": ",
                 errno == ENOENT ? "no such file" : std::strerror(errno));
  struct stat about = {};
  LWM_REQUIRE_AS(ErrorCode::kNotFound,
                 fstat(bytes.descriptor, &about) == 0 && S_ISREG(about.st_mode), "cannot read ",
                 path.string(), ": not a file");
  RefuseGitLfsPointer(path);
  bytes.size = about.st_size;
  Open(path.string(), "a video");
}

FfmpegInput::FfmpegInput(std::span<const std::byte> bytes, const std::string& where,
                         const char* wanted)
    : state_(std::make_unique<State>()) {
  state_->bytes.memory = bytes;
  state_->bytes.size = static_cast<int64_t>(bytes.size());
  Open(where, wanted);
}

FfmpegInput::~FfmpegInput() = default;

void FfmpegInput::Open(const std::string& where, const char* wanted) {
  PrepareFfmpeg();
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, state_->bytes.size > 0, where,
                 ": the file is empty (0 bytes)");
  constexpr int kBufferBytes = 1 << 16;
  auto* buffer = static_cast<unsigned char*>(av_malloc(kBufferBytes));
  state_->io =
      avio_alloc_context(buffer, kBufferBytes, 0, &state_->bytes, ReadBytes, nullptr, SeekBytes);
  AVFormatContext* format = avformat_alloc_context();
  LWM_CHECK(state_->io && format, "FFmpeg has no memory");
  // Own read functions instead of a path: FFmpeg would take the part before a colon for a protocol.
  format->pb = state_->io;
  format->io_open = RefuseOther;
  format->opaque = state_.get();
  int code = avformat_open_input(&format, nullptr, nullptr, nullptr);  // frees it on failure
  state_->format = code < 0 ? nullptr : format;
  if (code >= 0) code = avformat_find_stream_info(format, nullptr);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, code >= 0, where, ": not ", wanted,
                 " that FFmpeg reads, or a damaged or truncated one (", FfmpegError(code), ")");
  ChooseVideo(where, wanted);
}

// The default video that can be decoded, or the first one.
void FfmpegInput::ChooseVideo(const std::string& where, const char* wanted) {
  bool has_sound = false, has_cover = false;
  std::string unknown;
  for (unsigned i = 0; i < state_->format->nb_streams; ++i) {
    AVStream& stream = *state_->format->streams[i];
    has_sound |= stream.codecpar->codec_type == AVMEDIA_TYPE_AUDIO;
    if (stream.codecpar->codec_type != AVMEDIA_TYPE_VIDEO) continue;
    has_cover |= IsCover(stream);
    if (IsCover(stream)) continue;
    const AVCodec* decoder = avcodec_find_decoder(stream.codecpar->codec_id);
    if (!decoder) unknown = avcodec_get_name(stream.codecpar->codec_id);
    const bool is_default = (stream.disposition & AV_DISPOSITION_DEFAULT) != 0;
    const bool has_default =
        state_->video && (state_->video->disposition & AV_DISPOSITION_DEFAULT) != 0;
    if (!decoder || (state_->video && (has_default || !is_default))) continue;
    state_->video = &stream;
    state_->decoder = decoder;
  }
  if (state_->video) return;
  const std::string found =
      !unknown.empty()         ? "is coded as " + unknown + ", which this FFmpeg cannot decode"
      : has_sound && has_cover ? "has sound and a cover image only"
      : has_sound              ? "has sound only"
                               : "holds no image that can be read; is it damaged or truncated?";
  throw Error(ErrorCode::kCorruptData, Cat(where, ": ", found, "; want ", wanted));
}

// A transport stream is packets of one of three sizes.
bool FfmpegInput::EndsInTransportPacket() const {
  if (std::string_view(state_->format->iformat->name) != "mpegts") return false;
  const int64_t size = state_->bytes.size;
  return size % 188 != 0 && size % 192 != 0 && size % 204 != 0;
}

bool FfmpegInput::Read(AVPacket& packet) {
  for (;;) {
    av_packet_unref(&packet);
    const int code = av_read_frame(state_->format, &packet);
    if (code == AVERROR(EAGAIN)) continue;
    if (code < 0) {
      // Demuxers report an early end in different ways: a code, a message, a last packet marked as
      // corrupt, or a file that ends inside a transport packet.
      state_->breaks_off = code != AVERROR_EOF || state_->ended_early || state_->EndsInPacket() ||
                           EndsInTransportPacket();
      return false;
    }
    Follow(packet);
    if (state_->format->streams[packet.stream_index] == state_->video) return true;
  }
}

void FfmpegInput::Follow(const AVPacket& packet) {
  const AVStream& stream = *state_->format->streams[packet.stream_index];
  state_->last_is_corrupt.resize(state_->format->nb_streams);  // some appear late
  state_->last_is_corrupt[static_cast<size_t>(packet.stream_index)] =
      (packet.flags & AV_PKT_FLAG_CORRUPT) != 0;
  if (&stream == state_->video) state_->last_has_duration = packet.duration > 0;
  const int64_t start = packet.pts != AV_NOPTS_VALUE ? packet.pts : packet.dts;
  if (start == AV_NOPTS_VALUE || IsCover(stream)) return;
  const double end = static_cast<double>(start) + static_cast<double>(packet.duration);
  state_->reached = std::max(state_->reached, end * av_q2d(stream.time_base));
}

AVFormatContext& FfmpegInput::format() const { return *state_->format; }
AVStream& FfmpegInput::video() const { return *state_->video; }
const AVCodec& FfmpegInput::decoder() const { return *state_->decoder; }
double FfmpegInput::reached_seconds() const { return state_->reached; }
bool FfmpegInput::breaks_off() const { return state_->breaks_off; }
bool FfmpegInput::last_has_duration() const { return state_->last_has_duration; }

double FfmpegInput::stated_seconds() const {
  const AVFormatContext& format = *state_->format;
  // Other methods estimate it from the file itself.
  if (format.duration_estimation_method != AVFMT_DURATION_FROM_STREAM || format.duration <= 0)
    return 0;
  return static_cast<double>(format.duration) / AV_TIME_BASE;
}

}  // namespace lwm::io
