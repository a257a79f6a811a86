#include "lwm/io/ffmpeg_image.h"

extern "C" {
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/io/video_reader.h"

namespace lwm::io {
namespace {

// All that the tables of a conversion depend on.
struct Kind {
  int width = 0, height = 0, shown_width = 0;
  AVPixelFormat from = AV_PIX_FMT_NONE, to = AV_PIX_FMT_NONE;
  AVColorSpace matrix = AVCOL_SPC_UNSPECIFIED;
  AVColorRange range = AVCOL_RANGE_UNSPECIFIED;
  bool operator==(const Kind&) const = default;
};

bool HasAlpha(AVPixelFormat format) {
  const AVPixFmtDescriptor* about = av_pix_fmt_desc_get(format);
  return about && (about->flags & (AV_PIX_FMT_FLAG_ALPHA | AV_PIX_FMT_FLAG_PAL)) != 0;
}

// The frame's width in square pixels.
int ShownWidth(const AVFrame& frame, AVRational pixel_aspect, const std::string& where) {
  constexpr double kMost = 32768;
  if (pixel_aspect.num <= 0 || pixel_aspect.den <= 0) return frame.width;
  const double width = std::floor(frame.width * av_q2d(pixel_aspect) + 1e-9);
  const bool fits = width >= 1 && width <= kMost &&
                    width * frame.height <= static_cast<double>(VideoReader::kMostPixels);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, fits, where, ": pixels of aspect ", pixel_aspect.num, ":",
                 pixel_aspect.den, " would show ", frame.width, " x ", frame.height, " as ", width,
                 " x ", frame.height, "; want 1 to ", kMost, " columns and at most ",
                 VideoReader::kMostPixels, " pixels");
  return static_cast<int>(width);
}

void SetColours(SwsContext* scaler, const Kind& kind) {
  int *from_table = nullptr, *to_table = nullptr;
  int from_range = 0, to_range = 0, brightness = 0, contrast = 0, saturation = 0;
  if (sws_getColorspaceDetails(scaler, &from_table, &from_range, &to_table, &to_range, &brightness,
                               &contrast, &saturation) < 0)
    return;  // neither side is YUV
  // The stream's own matrix and range: by itself swscale takes BT.601 for every stream.
  if (kind.range != AVCOL_RANGE_UNSPECIFIED) from_range = kind.range == AVCOL_RANGE_JPEG;
  sws_setColorspaceDetails(scaler, sws_getCoefficients(kind.matrix), from_range, to_table, to_range,
                           brightness, contrast, saturation);
}

void CopyOnWhite(const uint8_t* rgba, uint8_t* rgb, int64_t width) {
  for (int64_t x = 0; x < width; ++x, rgba += 4, rgb += 3)
    for (int c = 0; c < 3; ++c)
      rgb[c] = static_cast<uint8_t>((rgba[c] * rgba[3] + 255 * (255 - rgba[3]) + 127) / 255);
}

}  // namespace

struct FfmpegImage::State {
  ~State() { sws_freeContext(scaler); }

  void Prepare(const Kind& wanted, const std::string& where) {
    if (scaler && wanted == kind) return;
    sws_freeContext(std::exchange(scaler, nullptr));
    kind = wanted;
    scaler = sws_getContext(kind.width, kind.height, kind.from, kind.shown_width, kind.height,
                            kind.to, SWS_BICUBIC, nullptr, nullptr, nullptr);
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, scaler != nullptr, where, ": frames of ", kind.width,
                   " x ", kind.height, " pixels of the format ",
                   av_get_pix_fmt_name(kind.from) ? av_get_pix_fmt_name(kind.from) : "unknown",
                   " cannot be converted");
    SetColours(scaler, kind);
    // Its vector code writes whole blocks: the rows have room for them.
    shown.reset(av_frame_alloc());
    LWM_CHECK(shown, "FFmpeg has no memory");
    shown->width = (kind.shown_width + 63) / 64 * 64;
    shown->height = kind.height + 2;
    shown->format = kind.to;
    LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, av_frame_get_buffer(shown.get(), 64) == 0, where,
                   ": no memory for a frame of ", kind.shown_width, " x ", kind.height);
  }

  SwsContext* scaler = nullptr;
  Kind kind;
  FramePointer shown;
};

FfmpegImage::FfmpegImage() : state_(std::make_unique<State>()) {}
FfmpegImage::~FfmpegImage() = default;

RgbImage FfmpegImage::Convert(const AVFrame& frame, AVRational pixel_aspect,
                              const std::string& where) {
  const auto format = static_cast<AVPixelFormat>(frame.format);
  const bool has_alpha = HasAlpha(format);
  const Kind kind{.width = frame.width,
                  .height = frame.height,
                  .shown_width = ShownWidth(frame, pixel_aspect, where),
                  .from = format,
                  .to = has_alpha ? AV_PIX_FMT_RGBA : AV_PIX_FMT_RGB24,
                  .matrix = frame.colorspace,
                  .range = frame.color_range};
  state_->Prepare(kind, where);
  const AVFrame& shown = *state_->shown;
  const int rows = sws_scale(state_->scaler, frame.data, frame.linesize, 0, frame.height,
                             shown.data, shown.linesize);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, rows == frame.height, where,
                 ": a frame cannot be converted");
  RgbImage image{kind.shown_width, frame.height, {}};
  image.rgb_HWC.resize(static_cast<size_t>(3 * image.width * image.height));
  for (int64_t y = 0; y < image.height; ++y) {
    const uint8_t* from = shown.data[0] + y * shown.linesize[0];
    uint8_t* to = image.rgb_HWC.data() + 3 * image.width * y;
    if (has_alpha)
      CopyOnWhite(from, to, image.width);
    else
      std::memcpy(to, from, static_cast<size_t>(3 * image.width));
  }
  return image;
}

// The matrix (a b u, c d v, x y w) maps a stored point to (a x + c y, b x + d y).
Orientation OrientationOf(const int32_t* matrix) {
  const double a = matrix[0], b = matrix[1], c = matrix[3], d = matrix[4];
  const bool keeps_axes = std::fabs(a) + std::fabs(d) >= std::fabs(b) + std::fabs(c);
  if (keeps_axes) {
    if (a >= 0) return d >= 0 ? Orientation::kUpright : Orientation::kFlipped;
    return d >= 0 ? Orientation::kMirrored : Orientation::kUpsideDown;
  }
  if (b >= 0) return c >= 0 ? Orientation::kTransposed : Orientation::kQuarterRight;
  return c >= 0 ? Orientation::kThreeQuartersRight : Orientation::kTransverse;
}

}  // namespace lwm::io
