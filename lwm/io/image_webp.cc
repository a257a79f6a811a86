#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>
#include <optional>
#include <string_view>

#include "lwm/base/error.h"
#include "lwm/io/exif.h"
#include "lwm/io/image_formats.h"

namespace lwm::io {
namespace {

struct WebpDelete {
  void operator()(WebPDemuxer* demuxer) const { WebPDemuxDelete(demuxer); }
  void operator()(WebPAnimDecoder* decoder) const { WebPAnimDecoderDelete(decoder); }
};

std::optional<std::string_view> Chunk(const WebPDemuxer& demuxer, const char* name) {
  WebPChunkIterator chunk;
  if (!WebPDemuxGetChunk(&demuxer, name, 1, &chunk)) return {};
  const std::string_view bytes(reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size);
  WebPDemuxReleaseChunkIterator(&chunk);
  return bytes;  // of the file, which stays
}

Orientation OrientationOf(const WebPDemuxer& demuxer) {
  if (const auto exif = Chunk(demuxer, "EXIF"))
    if (const auto turn = ExifOrientation(std::as_bytes(std::span(*exif)))) return *turn;
  const auto xmp = Chunk(demuxer, "XMP ");
  return (xmp ? XmpOrientation(*xmp) : std::nullopt).value_or(Orientation::kUpright);
}

// The first frame, on a clear canvas.
bool DecodeAnimation(const WebPData& data, std::vector<uint8_t>& rgba) {
  const std::unique_ptr<WebPAnimDecoder, WebpDelete> decoder(WebPAnimDecoderNew(&data, nullptr));
  uint8_t* canvas = nullptr;
  int time = 0;
  if (!decoder || !WebPAnimDecoderGetNext(decoder.get(), &canvas, &time)) return false;
  rgba.assign(canvas, canvas + rgba.size());
  return true;
}

}  // namespace

RgbImage DecodeWebp(std::span<const std::byte> bytes, const std::string& where) {
  const auto require = [&](bool well) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, well, where,
                   ": the WebP cannot be decoded; it is damaged or truncated");
  };
  const WebPData data = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  WebPBitstreamFeatures features;
  require(WebPGetFeatures(data.bytes, data.size, &features) == VP8_STATUS_OK);
  RequireImageSize(features.width, features.height, where);
  const std::unique_ptr<WebPDemuxer, WebpDelete> demuxer(WebPDemux(&data));
  require(demuxer != nullptr);  // the whole file is there
  std::vector<uint8_t> rgba(static_cast<size_t>(4) * static_cast<size_t>(features.width) *
                            static_cast<size_t>(features.height));
  if (features.has_animation)
    require(DecodeAnimation(data, rgba));
  else
    require(WebPDecodeRGBAInto(data.bytes, data.size, rgba.data(), rgba.size(),
                               4 * features.width) != nullptr);
  return TurnUpright(LaidOnWhite(rgba, features.width, features.height), OrientationOf(*demuxer));
}

}  // namespace lwm::io
