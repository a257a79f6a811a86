#include "lwm/io/image_file.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstring>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string_view>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/video_reader.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

// OpenCV prints what went wrong; errors of ours say it in one line instead.
void SilenceLibrary() {
  static const bool done = [] {
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    return true;
  }();
  (void)done;
}

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

}  // namespace

RgbImage DecodeImage(std::span<const std::byte> bytes, const std::string& where) {
  SilenceLibrary();
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

void WritePng(const fs::path& path, const RgbImage& image) {
  std::vector<uint8_t> bytes;
  LWM_CHECK(cv::imencode(".png", ToBgr(image), bytes), "PNG encoder");
  WriteFileAtomically(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace lwm::io
