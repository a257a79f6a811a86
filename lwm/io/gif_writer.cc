#include "lwm/io/gif_writer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/io/atomic_output.h"
#include "lwm/io/palette.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kLargestSide = 65535;

void AppendShort(std::string& out, int64_t value) {
  out += static_cast<char>(value & 255);
  out += static_cast<char>(value >> 8 & 255);
}

// Codes of 3 to 12 bits, lowest bit first.
class BitString {
 public:
  void Append(uint32_t code, int bits) {
    pending_ |= code << count_;
    for (count_ += bits; count_ >= 8; count_ -= 8, pending_ >>= 8)
      bytes_ += static_cast<char>(pending_ & 255);
  }
  std::string Finish() {
    if (count_ > 0) bytes_ += static_cast<char>(pending_ & 255);
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
  uint32_t pending_ = 0;
  int count_ = 0;
};

// GIF's form of LZW: code widths grow as codes are made; at 4096 codes the table starts afresh.
std::string Compress(const std::vector<uint8_t>& symbols, int symbol_bits) {
  constexpr uint32_t kMostCodes = 4096;
  const uint32_t clear = 1u << symbol_bits, end = clear + 1;
  uint32_t next = end + 1;
  int bits = symbol_bits + 1;
  std::unordered_map<uint32_t, uint32_t> code_of;  // prefix code and symbol to code
  BitString out;
  out.Append(clear, bits);
  uint32_t prefix = symbols.at(0);
  for (size_t i = 1; i < symbols.size(); ++i) {
    // Below 2^12 codes and 2^8 symbols, the key fits in 20 bits.
    const uint32_t key = prefix << 8 | symbols[i];
    if (const auto found = code_of.find(key); found != code_of.end()) {
      prefix = found->second;
      continue;
    }
    out.Append(prefix, bits);
    prefix = symbols[i];
    if (next == kMostCodes) {
      out.Append(clear, bits);
      code_of.clear();
      next = end + 1;
      bits = symbol_bits + 1;
      continue;
    }
    if (next == 1u << bits) ++bits;
    code_of[key] = next++;
  }
  out.Append(prefix, bits);
  // The reader makes one more code from the last one and may widen at it, so the end code must have
  // the width that it then expects.
  if (next == 1u << bits && next < kMostCodes) ++bits;
  out.Append(end, bits);
  return out.Finish();
}

void AppendBlocks(std::string& out, const std::string& bytes) {
  for (size_t begin = 0; begin < bytes.size(); begin += 255) {
    const size_t length = std::min<size_t>(255, bytes.size() - begin);
    out += static_cast<char>(length);
    out.append(bytes, begin, length);
  }
  out += '\0';
}

// Bits of a palette index; GIF knows no palette of one colour.
int IndexBits(size_t colours) {
  int bits = 1;
  while (size_t{1} << bits < colours) ++bits;
  return bits;
}

std::string ScreenHeader(int64_t width, int64_t height) {
  std::string out = "GIF89a";
  AppendShort(out, width);
  AppendShort(out, height);
  out.append({'\x70', '\0', '\0'});  // 8 bits per primary, no palette for all frames
  out.append("\x21\xff\x0bNETSCAPE2.0\x03\x01", 16);
  AppendShort(out, 0);  // repeat for ever
  out += '\0';
  return out;
}

std::string FrameBlocks(const RgbImage& frame, int64_t delay) {
  const IndexedImage indexed = MakeIndexed(frame);
  const int bits = IndexBits(indexed.palette.size());
  std::string out("\x21\xf9\x04\x04", 4);  // leave the frame where it is
  AppendShort(out, delay);
  out.append({'\0', '\0', '\x2c', '\0', '\0', '\0', '\0'});
  AppendShort(out, frame.width);
  AppendShort(out, frame.height);
  out += static_cast<char>(0x80 | (bits - 1));  // a palette of its own, of 2^bits colours
  for (const Colour& colour : indexed.palette) out.append(colour.begin(), colour.end());
  out.append(3 * ((size_t{1} << bits) - indexed.palette.size()), '\0');
  const int symbol_bits = std::max(2, bits);
  out += static_cast<char>(symbol_bits);
  AppendBlocks(out, Compress(indexed.index_HW, symbol_bits));
  return out;
}

}  // namespace

struct GifWriter::State {
  fs::path path;
  double rate = 0;
  int64_t width = 0, height = 0, frames = 0;
  std::optional<AtomicOutput> output;

  // End of frame i since the start, in hundredths of a second.
  int64_t EndOf(int64_t i) const { return std::llround(100 * static_cast<double>(i + 1) / rate); }
};

GifWriter::GifWriter(const fs::path& path, double frames_per_second)
    : state_(std::make_unique<State>()) {
  LWM_REQUIRE(frames_per_second > 0 && frames_per_second <= 100, path.string(), ": ",
              frames_per_second, " frames per second; a GIF wants more than 0, at most 100");
  state_->path = path;
  state_->rate = frames_per_second;
}

GifWriter::~GifWriter() = default;

void GifWriter::Add(const RgbImage& frame) {
  State& state = *state_;
  if (state.frames == 0) {
    LWM_REQUIRE(frame.width >= 1 && frame.height >= 1 && frame.width <= kLargestSide &&
                    frame.height <= kLargestSide,
                state.path.string(), ": frames of ", frame.width, " x ", frame.height,
                "; a GIF wants sides of 1 to ", kLargestSide, " pixels");
    state.width = frame.width;
    state.height = frame.height;
    state.output.emplace(state.path);
    state.output->file().Write(ScreenHeader(frame.width, frame.height));
  }
  LWM_REQUIRE(frame.width == state.width && frame.height == state.height, state.path.string(),
              ": a frame of ", frame.width, " x ", frame.height, " in a GIF of ", state.width,
              " x ", state.height);
  const int64_t begin = state.frames == 0 ? 0 : state.EndOf(state.frames - 1);
  const int64_t delay = std::min<int64_t>(65535, state.EndOf(state.frames) - begin);
  state.output->file().Write(FrameBlocks(frame, delay));
  ++state.frames;
}

void GifWriter::Finish() {
  LWM_REQUIRE(state_->frames > 0, state_->path.string(), ": a GIF of no frames was asked for");
  state_->output->file().Write(";");
  state_->output->Commit();
}

}  // namespace lwm::io
