#include "lwm/io/msgpack_writer.h"

#include <algorithm>

#include "lwm/base/error.h"

namespace lwm::io {
namespace {

template <class T>
std::string BigEndian(T value) {
  std::string bytes;
  for (size_t i = sizeof(T); i-- > 0;) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  return bytes;
}

std::string Tag(unsigned tag) { return std::string(1, static_cast<char>(tag)); }

// A length behind the tag of its width: 1, 2 or 4 bytes.
std::string Length(uint64_t size, unsigned tag8, unsigned tag16, unsigned tag32) {
  if (size < 256) return Tag(tag8) + BigEndian(static_cast<uint8_t>(size));
  if (size < 65536) return Tag(tag16) + BigEndian(static_cast<uint16_t>(size));
  return Tag(tag32) + BigEndian(static_cast<uint32_t>(size));
}

std::string Unsigned(uint64_t value) {
  if (value < 128) return Tag(static_cast<unsigned>(value));
  if (value >= uint64_t{1} << 32) return Tag(0xcf) + BigEndian(value);
  return Length(value, 0xcc, 0xcd, 0xce);
}

std::string Text(const std::string& text) {
  const bool is_short = text.size() < 32;
  return (is_short ? Tag(0xa0 | static_cast<unsigned>(text.size()))
                   : Length(text.size(), 0xd9, 0xda, 0xdb)) +
         text;
}

std::string Array(uint64_t size) {
  return size < 16 ? Tag(0x90 | static_cast<unsigned>(size))
                   : Tag(0xdc) + BigEndian(static_cast<uint16_t>(size));
}

std::string Map(uint64_t size) {
  return size < 16 ? Tag(0x80 | static_cast<unsigned>(size))
                   : Tag(0xde) + BigEndian(static_cast<uint16_t>(size));
}

std::string Bin(uint64_t size) { return Length(size, 0xc4, 0xc5, 0xc6); }

std::string Ext(uint64_t size) {
  constexpr unsigned kNdarray = 1;
  for (unsigned power = 0; power <= 4; ++power)
    if (size == uint64_t{1} << power) return Tag(0xd4 + power) + Tag(kNdarray);
  return Length(size, 0xc7, 0xc8, 0xc9) + Tag(kNdarray);
}

// The header of an array inside its extension, up to its data: [shape, type, data...
std::string ArrayHead(const std::vector<int64_t>& shape, DType dtype, uint64_t bytes) {
  std::string head = Array(3) + Array(shape.size());
  for (const int64_t size : shape) head += Unsigned(static_cast<uint64_t>(size));
  return head + Text(std::string(NumpyName(dtype))) + Bin(bytes);
}

std::string ExtHead(const std::vector<int64_t>& shape, DType dtype, uint64_t bytes) {
  const std::string head = ArrayHead(shape, dtype, bytes);
  return Ext(head.size() + bytes) + head;
}

struct Chunk {
  std::string head;  // key and extension head
  uint64_t bytes = 0;
};

Chunk MakeChunk(const TensorInfo& info, uint64_t index, uint64_t total, uint64_t limit) {
  const uint64_t size = DTypeSize(info.dtype);
  const uint64_t whole = limit / size * size;
  const uint64_t bytes = std::min(whole, total - index * whole);
  return {Text(std::to_string(index)) +
              ExtHead({static_cast<int64_t>(bytes / size)}, info.dtype, bytes),
          bytes};
}

std::string ChunkedHead(const TensorInfo& info, uint64_t chunks) {
  std::string head = Map(3) + Text("__msgpack_chunked_array__") + Tag(0xc3) + Text("shape") +
                     Map(info.shape.size());
  for (size_t d = 0; d < info.shape.size(); ++d)
    head += Text(std::to_string(d)) + Unsigned(static_cast<uint64_t>(info.shape[d]));
  return head + Text("chunks") + Map(chunks);
}

uint64_t CountChunks(const TensorInfo& info, uint64_t bytes, uint64_t limit) {
  const uint64_t whole = limit / DTypeSize(info.dtype) * DTypeSize(info.dtype);
  return (bytes + whole - 1) / whole;
}

uint64_t BlobBytes(const TensorInfo& info, uint64_t bytes, uint64_t limit) {
  if (bytes <= limit) return ExtHead(info.shape, info.dtype, bytes).size() + bytes;
  const uint64_t chunks = CountChunks(info, bytes, limit);
  uint64_t total = ChunkedHead(info, chunks).size() + bytes;
  for (uint64_t i = 0; i < chunks; ++i) total += MakeChunk(info, i, bytes, limit).head.size();
  return total;
}

std::string Key(const std::string& name) {
  std::string parts;
  uint64_t count = 0;
  for (size_t begin = 0; begin <= name.size(); ++count) {
    const size_t end = std::min(name.find('/', begin), name.size());
    parts += Text(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return Array(count) + parts;
}

}  // namespace

void MsgpackWriter::Begin(const TensorInfo& info) {
  LWM_CHECK(remaining_ == 0, "record ", info_.name, " is not complete");
  info_ = info;
  remaining_ = TensorBytes(info);
  chunked_ = remaining_ > chunk_bytes_;
  chunk_index_ = 0;
  // msgpack puts a blob's length before it: it is computed first, then the data is streamed.
  const uint64_t blob = BlobBytes(info, remaining_, chunk_bytes_);
  LWM_REQUIRE(blob <= UINT32_MAX, "weight ", info.name, " ", ShapeText(info.shape), " takes ", blob,
              " bytes, more than one record can hold (4 GiB); use --dtype bf16");
  BackgroundFile& file = output_.file();
  file.Write(Array(2) + Key(info.name) + Bin(blob));
  if (chunked_) {
    file.Write(ChunkedHead(info, CountChunks(info, remaining_, chunk_bytes_)));
    BeginChunk();
  } else {
    file.Write(ExtHead(info.shape, info.dtype, remaining_));
    chunk_remaining_ = remaining_;
  }
}

void MsgpackWriter::BeginChunk() {
  const Chunk chunk = MakeChunk(info_, chunk_index_++, TensorBytes(info_), chunk_bytes_);
  output_.file().Write(chunk.head);
  chunk_remaining_ = chunk.bytes;
}

void MsgpackWriter::Write(std::span<const std::byte> bytes) {
  LWM_CHECK(bytes.size() <= remaining_, "record ", info_.name, " has more bytes than declared");
  while (!bytes.empty()) {
    if (chunk_remaining_ == 0) BeginChunk();
    const auto now = std::min<uint64_t>(bytes.size(), chunk_remaining_);
    output_.file().Write(bytes.data(), now);
    bytes = bytes.subspan(now);
    chunk_remaining_ -= now;
    remaining_ -= now;
  }
}

void MsgpackWriter::Finish() {
  LWM_CHECK(remaining_ == 0, "record ", info_.name, " is not complete");
  output_.Commit();
}

}  // namespace lwm::io
