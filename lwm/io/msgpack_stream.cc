#include "lwm/io/msgpack_stream.h"

#include <bit>
#include <charconv>
#include <cstring>
#include <map>

#include "lwm/io/tensor_limits.h"

namespace lwm::io {
namespace {

enum class Type { kNil, kBool, kInt, kFloat, kText, kBin, kArray, kMap, kExt };

// A value's header. Its content follows: for texts, bins and exts `size` bytes follow, for arrays
// `size` values, for maps `size` pairs.
struct Header {
  Type type = Type::kNil;
  uint64_t size = 0;
  int64_t integer = 0;
  double number = 0;
  int ext_type = 0;
};

constexpr int kNdarray = 1, kScalar = 3;  // flax's ext types
// Every level of maps is skipped once by the level above before it is read: the depth bounds the
// time as well as the stack.
constexpr int kMaxDepth = 32;
constexpr uint64_t kMaxChildren = 500'000;
constexpr std::string_view kChunkedMark = "__msgpack_chunked_array__";

Header Sized(Type type, uint64_t size) { return {.type = type, .size = size}; }
Header Integer(int64_t value) { return {.type = Type::kInt, .integer = value}; }

Header ReadExt(ByteReader& in, uint64_t size) {
  Header header = Sized(Type::kExt, size);
  header.ext_type = static_cast<int8_t>(in.Number<uint8_t>());
  return header;
}

Header ReadUnsigned64(ByteReader& in) {
  const auto value = in.BigEndian<uint64_t>();
  in.Require(value <= INT64_MAX, "integer beyond 63 bits");
  return Integer(static_cast<int64_t>(value));
}

Header ReadNumber(ByteReader& in, uint8_t tag) {
  switch (tag) {
    case 0xca: {
      const auto value = std::bit_cast<float>(in.BigEndian<uint32_t>());
      return {.type = Type::kFloat, .number = value};
    }
    case 0xcb: {
      const auto value = std::bit_cast<double>(in.BigEndian<uint64_t>());
      return {.type = Type::kFloat, .number = value};
    }
    case 0xcc:
      return Integer(in.Number<uint8_t>());
    case 0xcd:
      return Integer(in.BigEndian<uint16_t>());
    case 0xce:
      return Integer(in.BigEndian<uint32_t>());
    case 0xcf:
      return ReadUnsigned64(in);
    case 0xd0:
      return Integer(in.Number<int8_t>());
    case 0xd1:
      return Integer(static_cast<int16_t>(in.BigEndian<uint16_t>()));
    case 0xd2:
      return Integer(static_cast<int32_t>(in.BigEndian<uint32_t>()));
    default:
      return Integer(static_cast<int64_t>(in.BigEndian<uint64_t>()));  // d3
  }
}

Header ReadHeader(ByteReader& in) {
  const auto tag = in.Number<uint8_t>();
  if (tag <= 0x7f) return Integer(tag);
  if (tag <= 0x8f) return Sized(Type::kMap, tag & 0x0f);
  if (tag <= 0x9f) return Sized(Type::kArray, tag & 0x0f);
  if (tag <= 0xbf) return Sized(Type::kText, tag & 0x1f);
  if (tag >= 0xe0) return Integer(static_cast<int8_t>(tag));
  if (tag >= 0xca && tag <= 0xd3) return ReadNumber(in, tag);
  if (tag >= 0xd4 && tag <= 0xd8) return ReadExt(in, uint64_t{1} << (tag - 0xd4));
  switch (tag) {
    case 0xc0:
      return {};
    case 0xc2:
      return {.type = Type::kBool, .integer = 0};
    case 0xc3:
      return {.type = Type::kBool, .integer = 1};
    case 0xc4:
      return Sized(Type::kBin, in.Number<uint8_t>());
    case 0xc5:
      return Sized(Type::kBin, in.BigEndian<uint16_t>());
    case 0xc6:
      return Sized(Type::kBin, in.BigEndian<uint32_t>());
    case 0xc7:
      return ReadExt(in, in.Number<uint8_t>());
    case 0xc8:
      return ReadExt(in, in.BigEndian<uint16_t>());
    case 0xc9:
      return ReadExt(in, in.BigEndian<uint32_t>());
    case 0xd9:
      return Sized(Type::kText, in.Number<uint8_t>());
    case 0xda:
      return Sized(Type::kText, in.BigEndian<uint16_t>());
    case 0xdb:
      return Sized(Type::kText, in.BigEndian<uint32_t>());
    case 0xdc:
      return Sized(Type::kArray, in.BigEndian<uint16_t>());
    case 0xdd:
      return Sized(Type::kArray, in.BigEndian<uint32_t>());
    case 0xde:
      return Sized(Type::kMap, in.BigEndian<uint16_t>());
    case 0xdf:
      return Sized(Type::kMap, in.BigEndian<uint32_t>());
    default:
      in.Fail("byte c1 is not msgpack");
  }
}

Header Expect(ByteReader& in, Type type, const char* what) {
  const Header header = ReadHeader(in);
  in.Require(header.type == type, "something else where ", what, " belongs");
  return header;
}

std::string_view ReadText(ByteReader& in) {
  return in.Text(Expect(in, Type::kText, "a text").size);
}

void Skip(ByteReader& in, int depth) {
  in.Require(depth < kMaxDepth, "values are nested too deep");
  const Header header = ReadHeader(in);
  switch (header.type) {
    case Type::kText:
    case Type::kBin:
    case Type::kExt:
      in.Bytes(header.size);
      return;
    case Type::kArray:
    case Type::kMap:
      // A count may be up to 2^32, but each value takes a byte of the file at least.
      for (uint64_t i = 0; i < header.size * (header.type == Type::kMap ? 2 : 1); ++i)
        Skip(in, depth + 1);
      return;
    default:
      return;
  }
}

class CheckpointReader {
 public:
  CheckpointReader(std::span<const std::byte> file, const std::string& where)
      : in_(file, where), limits_(where) {}

  std::vector<MsgpackTensor> Run() {
    in_.Require(!in_.at_end(), "empty file");
    const size_t begin = in_.position();
    const Type first = ReadHeader(in_).type;
    in_.Seek(begin);
    in_.Require(first == Type::kMap || first == Type::kArray, "not a msgpack checkpoint");
    if (first == Type::kMap) {
      ReadValue(in_, "", 0);
      in_.Require(in_.at_end(), "bytes after the map of weights");
    } else {
      while (!in_.at_end()) ReadRecord();
    }
    return std::move(tensors_);
  }

 private:
  using Children = std::map<std::string_view, size_t>;  // key -> position of the value

  void ReadRecord() {
    in_.Require(Expect(in_, Type::kArray, "a record").size == 2, "a record is not [key, blob]");
    std::string name;
    const uint64_t parts = Expect(in_, Type::kArray, "a key").size;
    for (uint64_t i = 0; i < parts; ++i) {
      name += (i ? "/" : "") + std::string(ReadText(in_));
      in_.Require(name.size() <= 4096, "key is too long");
    }
    const uint64_t bytes = Expect(in_, Type::kBin, "a blob").size;
    ByteReader blob(in_.Bytes(bytes), Cat(in_.where(), ": ", name));
    ReadValue(blob, name, 0);
    blob.Require(blob.at_end(), "bytes after the value");
  }

  void ReadValue(ByteReader& in, const std::string& name, int depth) {
    in.Require(depth < kMaxDepth && name.size() <= 4096, "maps are nested too deep");
    const Header header = ReadHeader(in);
    switch (header.type) {
      case Type::kNil:
        return;
      case Type::kText:
        in.Bytes(header.size);
        return;  // a note, not a weight
      case Type::kMap:
        return ReadMap(in, name, header.size, depth);
      case Type::kExt:
        return Add(ReadArray(in, name, header));
      case Type::kBool:
        return AddScalar(name, DType::kBool, header.integer);
      case Type::kInt:
        return AddScalar(name, DType::kI64, header.integer);
      case Type::kFloat:
        return AddScalar(name, DType::kF64, std::bit_cast<int64_t>(header.number));
      default:
        in.Fail(name, ": an array or bytes where a tensor belongs");
    }
  }

  // Positions of the values only. A map of weights and a chunked array are told apart by their
  // keys, so these are read first.
  Children ReadChildren(ByteReader& in, uint64_t size, int depth) {
    in.Require(size <= kMaxChildren, "a map has too many entries");
    Children children;
    for (uint64_t i = 0; i < size; ++i) {
      const std::string_view key = ReadText(in);
      in.Require(children.emplace(key, in.position()).second, "key ", key.substr(0, 60),
                 " appears twice");
      Skip(in, depth);
    }
    return children;
  }

  void ReadMap(ByteReader& in, const std::string& name, uint64_t size, int depth) {
    const Children children = ReadChildren(in, size, depth);
    const size_t end = in.position();
    if (children.contains(kChunkedMark)) {
      Add(ReadChunked(in, name, children, depth));
    } else {
      for (const auto& [key, position] : children) {
        in.Seek(position);
        ReadValue(in, name.empty() ? std::string(key) : Cat(name, "/", key), depth + 1);
      }
    }
    in.Seek(end);
  }

  // The values of a map whose keys are "0", "1" ... n-1, in numeric order.
  std::vector<size_t> ReadIndexed(ByteReader& in, const Children& parent, std::string_view key,
                                  int depth) {
    const auto found = parent.find(key);
    in.Require(found != parent.end(), "chunked array without ", key);
    in.Seek(found->second);
    const Children children =
        ReadChildren(in, Expect(in, Type::kMap, "a map of chunks").size, depth + 1);
    std::vector<size_t> positions(children.size(), SIZE_MAX);
    for (const auto& [text, position] : children) {
      size_t index = 0;
      const auto parsed = std::from_chars(text.data(), text.data() + text.size(), index);
      const bool valid = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() &&
                         index < positions.size() && positions[index] == SIZE_MAX;
      in.Require(valid, "chunked array has a key ", text.substr(0, 20));
      positions[index] = position;
    }
    return positions;
  }

  MsgpackTensor ReadChunked(ByteReader& in, const std::string& name, const Children& children,
                            int depth) {
    MsgpackTensor whole;
    whole.info.name = name;
    for (const size_t position : ReadIndexed(in, children, "shape", depth)) {
      in.Seek(position);
      whole.info.shape.push_back(Expect(in, Type::kInt, "a size").integer);
    }
    uint64_t bytes = 0;
    for (const size_t position : ReadIndexed(in, children, "chunks", depth)) {
      in.Seek(position);
      const MsgpackTensor chunk = ReadArray(in, name, Expect(in, Type::kExt, "a chunk"));
      in.Require(whole.chunks.empty() || chunk.info.dtype == whole.info.dtype, name,
                 ": chunks of different types");
      whole.info.dtype = chunk.info.dtype;
      whole.chunks.push_back(chunk.chunks[0]);
      bytes += chunk.chunks[0].size();
    }
    in.Require(TensorBytes(whole.info.dtype, whole.info.shape) == bytes, name, ": ", bytes,
               " bytes do not fill ", ShapeText(whole.info.shape));
    return whole;
  }

  MsgpackTensor ReadArray(ByteReader& in, const std::string& name, const Header& header) {
    in.Require(header.ext_type == kNdarray || header.ext_type == kScalar, name, ": extension type ",
               header.ext_type, " is not an array");
    // flax packs an array as msgpack inside the extension: [shape, dtype name, C-order data].
    ByteReader payload(in.Bytes(header.size), Cat(in.where(), ": array"));
    payload.Require(Expect(payload, Type::kArray, "an array").size == 3, "not [shape, type, data]");
    MsgpackTensor tensor;
    tensor.info.name = name;
    const uint64_t dims = Expect(payload, Type::kArray, "a shape").size;
    payload.Require(dims <= 32, "too many dimensions");
    for (uint64_t d = 0; d < dims; ++d)
      tensor.info.shape.push_back(Expect(payload, Type::kInt, "a size").integer);
    const std::string_view dtype_name = ReadText(payload);
    const auto dtype = DTypeFromNumpy(dtype_name);
    payload.Require(dtype.has_value(), "type ", dtype_name.substr(0, 20), " is not supported");
    tensor.info.dtype = *dtype;
    const auto data = payload.Bytes(Expect(payload, Type::kBin, "data").size);
    payload.Require(TensorBytes(*dtype, tensor.info.shape) == data.size(), data.size(),
                    " bytes do not fill ", dtype_name, " ", ShapeText(tensor.info.shape));
    payload.Require(payload.at_end(), "bytes after the data");
    tensor.chunks.push_back(data);
    return tensor;
  }

  void AddScalar(const std::string& name, DType dtype, int64_t bits) {
    MsgpackTensor tensor;
    tensor.info = {name, dtype, {}};
    tensor.is_scalar = true;
    std::memcpy(tensor.scalar.data(), &bits, sizeof(bits));
    Add(std::move(tensor));
  }

  void Add(MsgpackTensor tensor) {
    in_.Require(!tensor.info.name.empty(), "a value without a name");
    limits_.Count(tensor.info);
    tensors_.push_back(std::move(tensor));
  }

  ByteReader in_;
  TensorLimits limits_;
  std::vector<MsgpackTensor> tensors_;
};

}  // namespace

std::vector<MsgpackTensor> ParseMsgpackCheckpoint(std::span<const std::byte> file,
                                                  const std::string& where) {
  return CheckpointReader(file, where).Run();
}

MsgpackSource::MsgpackSource(const std::filesystem::path& path)
    : TensorSource(path), file_(path), tensors_(ParseMsgpackCheckpoint(file_.bytes(), where())) {
  std::vector<TensorInfo> infos;
  for (const MsgpackTensor& tensor : tensors_) infos.push_back(tensor.info);
  SetInfos(std::move(infos));
}

void MsgpackSource::ReadRange(size_t index, uint64_t offset,
                              std::span<std::byte> destination) const {
  CheckRange(index, offset, destination.size());
  const MsgpackTensor& tensor = tensors_[index];
  if (tensor.is_scalar) {
    if (!destination.empty())
      std::memcpy(destination.data(), tensor.scalar.data(), destination.size());
    return;
  }
  for (const auto chunk : tensor.chunks) {
    if (destination.empty()) return;
    if (offset >= chunk.size()) {
      offset -= chunk.size();
      continue;
    }
    const size_t bytes = std::min<size_t>(destination.size(), chunk.size() - offset);
    std::memcpy(destination.data(), chunk.data() + offset, bytes);
    file_.Forget(static_cast<size_t>(chunk.data() - file_.bytes().data()) + offset, bytes);
    destination = destination.subspan(bytes);
    offset = 0;
  }
}

}  // namespace lwm::io
