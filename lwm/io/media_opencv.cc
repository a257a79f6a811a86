#include "lwm/io/media_opencv.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstring>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>
#include <string_view>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/git_lfs.h"
#include "lwm/io/mp4_outline.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

// OpenCV and FFmpeg print what went wrong; errors of ours say it in one line instead.
void SilenceLibraries() {
  static const bool done = [] {
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    setenv("OPENCV_FFMPEG_LOGLEVEL", "-8", 0);
    return true;
  }();
  (void)done;
}

// FFmpeg takes what stands before a colon for a protocol, unless there is a slash in it.
std::string NameForFfmpeg(const fs::path& path) { return fs::absolute(path).string(); }

bool StartsWith(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

[[noreturn]] void ThrowBroken(const std::string& where, const std::string& problem) {
  throw Error(ErrorCode::kCorruptData, Cat(where, ": ", problem));
}

// True when the markers of a JPEG lead from its start to its end: inside coded data 0xff is
// followed by 0 or a restart, any other marker but those without a body states its length.
bool IsWholeJpeg(std::span<const std::byte> bytes) {
  const auto at = [&](size_t i) { return std::to_integer<unsigned>(bytes[i]); };
  constexpr unsigned kStart = 0xd8, kEnd = 0xd9, kScan = 0xda;
  bool in_scan = false, has_scan = false;
  for (size_t i = 0; i + 1 < bytes.size();) {
    const unsigned marker = at(i + 1);
    const bool is_marker = at(i) == 0xff && marker != 0 && marker != 0xff;
    const bool is_restart = marker >= 0xd0 && marker <= 0xd7;
    if (!is_marker || is_restart || marker == kStart || marker == 0x01) {
      if (!is_marker && !in_scan && at(i) != 0xff) return false;
      i += is_marker ? 2 : 1;
      continue;
    }
    if (marker == kEnd) return has_scan;
    if (i + 3 >= bytes.size()) return false;
    in_scan = marker == kScan;
    has_scan |= in_scan;
    i += 2 + at(i + 2) * 256 + at(i + 3);
  }
  return false;
}

cv::Mat DecodeAny(std::span<const std::byte> bytes, const std::string& where) {
  constexpr size_t kMostBytes = 1 << 30;
  if (bytes.size() > kMostBytes) ThrowBroken(where, "pictures above 1 GiB are not supported");
  const cv::Mat buffer(1, static_cast<int>(bytes.size()), CV_8UC1,
                       const_cast<std::byte*>(bytes.data()));
  const bool is_jpeg = StartsWith(bytes, "\xff\xd8\xff");
  // libjpeg fills a truncated picture with grey.
  if (is_jpeg && !IsWholeJpeg(bytes)) ThrowBroken(where, "the JPEG is truncated or damaged");
  try {
    cv::Mat picture = cv::imdecode(buffer, is_jpeg ? cv::IMREAD_COLOR : cv::IMREAD_UNCHANGED);
    if (!picture.empty()) return picture;
  } catch (const cv::Exception& error) {
    ThrowBroken(where, "the picture cannot be decoded: " + error.err);
  }
  ThrowBroken(where, "not a picture of a known format, or a damaged or truncated one");
}

// 8 bits per channel: 65535 and 1.0 become 255.
cv::Mat ToBytes(const cv::Mat& picture, const std::string& where) {
  cv::Mat bytes;
  switch (picture.depth()) {
    case CV_8U:
      return picture;
    case CV_16U:
      picture.convertTo(bytes, CV_8U, 1.0 / 257);
      return bytes;
    case CV_32F:
    case CV_64F:
      picture.convertTo(bytes, CV_8U, 255);
      return bytes;
    default:
      ThrowBroken(where, "pictures of signed integers are not supported");
  }
}

// BGRA laid on white, as RGB.
void LayOnWhite(const cv::Mat& bgra, cv::Mat& rgb) {
  for (int y = 0; y < bgra.rows; ++y) {
    const auto* from = bgra.ptr<uint8_t>(y);
    auto* to = rgb.ptr<uint8_t>(y);
    for (int x = 0; x < bgra.cols; ++x, from += 4, to += 3)
      for (int c = 0; c < 3; ++c)
        to[c] = static_cast<uint8_t>((from[2 - c] * from[3] + 255 * (255 - from[3]) + 127) / 255);
  }
}

RgbImage ToRgb(const cv::Mat& picture, const std::string& where) {
  const cv::Mat bytes = ToBytes(picture, where);
  RgbImage image{bytes.cols, bytes.rows, std::vector<uint8_t>(3 * bytes.total())};
  cv::Mat rgb(bytes.rows, bytes.cols, CV_8UC3, image.rgb_HWC.data());  // written in place
  switch (bytes.channels()) {
    case 1:
      cv::cvtColor(bytes, rgb, cv::COLOR_GRAY2RGB);
      break;
    case 3:
      cv::cvtColor(bytes, rgb, cv::COLOR_BGR2RGB);
      break;
    case 4:
      LayOnWhite(bytes, rgb);
      break;
    default:
      ThrowBroken(where, Cat("pictures of ", bytes.channels(), " channels are not supported"));
  }
  LWM_CHECK(rgb.data == image.rgb_HWC.data(), "OpenCV moved the pixels");
  return image;
}

// A view of the picture for OpenCV.
cv::Mat ToBgr(const RgbImage& image) {
  LWM_REQUIRE(image.width > 0 && image.height > 0, "an image without pixels cannot be written");
  const cv::Mat rgb(static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC3,
                    const_cast<uint8_t*>(image.rgb_HWC.data()));
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  return bgr;
}

std::string LowerExtension(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

template <size_t n>
bool Contains(const std::array<std::string_view, n>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

}  // namespace

RgbImage DecodeImage(std::span<const std::byte> bytes, const std::string& where) {
  SilenceLibraries();
  if (bytes.empty()) ThrowBroken(where, "the picture is empty (0 bytes)");
  return ToRgb(DecodeAny(bytes, where), where);
}

RgbImage ReadImage(const fs::path& path) {
  const std::string content = ReadFile(path);
  const auto bytes = std::as_bytes(std::span(content));
  if (!StartsWith(bytes, "GIF8")) return DecodeImage(bytes, path.string());
  VideoReader frames(path);
  if (!frames.Grab()) ThrowBroken(path.string(), "the GIF holds no frame");
  return frames.Retrieve();
}

bool IsVideoName(const fs::path& path) {
  static constexpr std::array<std::string_view, 18> kVideos = {
      ".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".wmv",
      ".flv", ".ogv", ".gif", ".3gp",  ".3g2", ".ts",  ".mts", ".m2ts", ".asf"};
  return Contains(kVideos, LowerExtension(path));
}

bool IsImageName(const fs::path& path) {
  static constexpr std::array<std::string_view, 13> kImages = {
      ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff",
      ".ppm", ".pgm", ".pnm",  ".jp2",  ".jpe", ".jfif"};
  return Contains(kImages, LowerExtension(path));
}

struct VideoReader::State {
  // The time of the frame grabbed last, since the first. Frames that the decoder still held at the
  // end of the file come without one: they follow as far apart as the frames before.
  void FollowTime() {
    const double now = capture.get(cv::CAP_PROP_POS_MSEC) / 1000;
    if (grabbed == 1) first = now;
    if (grabbed > 1 && now - first > seconds) apart = now - first - seconds;
    if (grabbed > 1) seconds += apart;
  }

  std::string where;
  mutable cv::VideoCapture capture;
  Mp4Outline outline;
  int64_t grabbed = 0;
  double first = 0, seconds = 0, apart = 0;
};

VideoReader::VideoReader(const fs::path& path) : state_(std::make_unique<State>()) {
  SilenceLibraries();
  state_->where = path.string();
  LWM_REQUIRE_AS(ErrorCode::kNotFound, fs::is_regular_file(path), "cannot read ", path.string(),
                 ": no such file");
  RefuseGitLfsPointer(path);
  // FFmpeg only: other back ends take names for image sequences or cameras.
  bool opened = false;
  try {
    opened = state_->capture.open(NameForFfmpeg(path), cv::CAP_FFMPEG);
  } catch (const cv::Exception&) {
    opened = false;
  }
  if (!opened) ThrowBroken(path.string(), "not a video that FFmpeg reads, or a damaged one");
  state_->outline = ReadMp4Outline(MappedFile(path).bytes());
  // OpenCV's own turning goes the wrong way in 4.6 with FFmpeg 5, and is missing in other versions.
  if (state_->outline.has_video) state_->capture.set(cv::CAP_PROP_ORIENTATION_AUTO, 0);
  if (frames_per_second() > 0) state_->apart = 1 / frames_per_second();
}

VideoReader::~VideoReader() = default;

double VideoReader::frames_per_second() const {
  const double rate = state_->capture.get(cv::CAP_PROP_FPS);
  return std::isfinite(rate) && rate > 0 ? rate : 0;
}

int64_t VideoReader::stated_frames() const {
  const double frames = state_->capture.get(cv::CAP_PROP_FRAME_COUNT);
  return std::isfinite(frames) && frames > 0 && frames < 1e12 ? static_cast<int64_t>(frames) : 0;
}

double VideoReader::seconds() const { return state_->seconds; }

bool VideoReader::Grab() {
  if (state_->capture.grab()) {
    ++state_->grabbed;
    state_->FollowTime();
    return true;
  }
  // A few frames may be missing for good: those that refer to what was cut off.
  const Mp4Outline& outline = state_->outline;
  const int64_t stated = outline.has_table ? stated_frames() : 0;
  const int64_t least = outline.is_truncated ? stated - 2
                        : outline.is_trimmed ? 0
                                             : stated * 9 / 10 - 2;
  if (state_->grabbed > 0 && state_->grabbed < least)
    ThrowBroken(state_->where, Cat("the video is truncated or damaged: it ends after ",
                                   state_->grabbed, " of ", stated, " frames"));
  return false;
}

RgbImage VideoReader::Retrieve() const {
  cv::Mat frame;
  if (!state_->capture.retrieve(frame) || frame.empty())
    ThrowBroken(state_->where, "a frame cannot be decoded");
  const int turn = state_->outline.turn_degrees;
  if (turn == 90) cv::rotate(frame, frame, cv::ROTATE_90_CLOCKWISE);
  if (turn == 180) cv::rotate(frame, frame, cv::ROTATE_180);
  if (turn == 270) cv::rotate(frame, frame, cv::ROTATE_90_COUNTERCLOCKWISE);
  return ToRgb(frame, state_->where);
}

int64_t CountFrames(const fs::path& path, const std::function<bool(const VideoReader&)>& counts) {
  VideoReader reader(path);
  int64_t frames = 0;
  while (reader.Grab()) frames += !counts || counts(reader);
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

void WritePng(const fs::path& path, const RgbImage& image) {
  std::vector<uint8_t> bytes;
  LWM_CHECK(cv::imencode(".png", ToBgr(image), bytes), "PNG encoder");
  WriteFileAtomically(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

namespace {

// OpenCV does not tell when FFmpeg could not write.
bool HoldsFrames(const fs::path& path, int64_t frames) {
  try {
    return VideoReader(path).stated_frames() == frames &&
           !ReadMp4Outline(MappedFile(path).bytes()).is_truncated;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

struct Mp4Writer::State {
  fs::path path, temporary;
  double rate = 0;
  int64_t width = 0, height = 0, frames = 0;
  cv::VideoWriter writer;
  bool finished = false;
};

Mp4Writer::Mp4Writer(const fs::path& path, double frames_per_second)
    : state_(std::make_unique<State>()) {
  SilenceLibraries();
  LWM_REQUIRE(frames_per_second > 0 && frames_per_second <= 1000, path.string(), ": ",
              frames_per_second, " frames per second; want more than 0, at most 1000");
  state_->path = path;
  state_->temporary = TemporaryBeside(path, ".mp4");
  state_->rate = frames_per_second;
}

Mp4Writer::~Mp4Writer() {
  if (state_->finished) return;
  state_->writer.release();
  std::error_code ignored;
  fs::remove(state_->temporary, ignored);
}

void Mp4Writer::Add(const RgbImage& frame) {
  const cv::Mat bgr = ToBgr(frame);
  if (state_->width == 0) {
    const cv::Size size(bgr.cols + bgr.cols % 2, bgr.rows + bgr.rows % 2);
    const bool opened =
        state_->writer.open(NameForFfmpeg(state_->temporary), cv::CAP_FFMPEG,
                            cv::VideoWriter::fourcc('a', 'v', 'c', '1'), state_->rate, size);
    LWM_REQUIRE(opened, state_->path.string(),
                ": cannot be written; the folder is missing or FFmpeg has no H.264 encoder");
    state_->width = frame.width;
    state_->height = frame.height;
  }
  LWM_REQUIRE(frame.width == state_->width && frame.height == state_->height, state_->path.string(),
              ": a frame of ", frame.width, " x ", frame.height, " in a video of ", state_->width,
              " x ", state_->height);
  cv::Mat even;
  cv::copyMakeBorder(bgr, even, 0, bgr.rows % 2, 0, bgr.cols % 2, cv::BORDER_REPLICATE);
  state_->writer.write(even);
  ++state_->frames;
}

void Mp4Writer::Finish() {
  LWM_REQUIRE(state_->width > 0, state_->path.string(), ": a video of no frames was asked for");
  state_->writer.release();
  SyncPath(state_->temporary);
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, HoldsFrames(state_->temporary, state_->frames),
                 state_->path.string(), ": not all frames could be written; is the disk full?");
  RenameAndSync(state_->temporary, state_->path);
  state_->finished = true;
}

}  // namespace lwm::io
