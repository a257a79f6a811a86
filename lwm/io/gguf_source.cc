#include "lwm/io/gguf_source.h"

#include <algorithm>
#include <cstring>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/io/byte_reader.h"
#include "lwm/io/gguf_split.h"
#include "lwm/io/tensor_limits.h"

namespace lwm::io {
namespace {

enum ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};
constexpr size_t kValueBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
// Far above any model; counts beyond are of damaged or hostile files.
constexpr uint64_t kMaxKeys = 100'000, kMaxTensors = 300'000, kDefaultAlignment = 32;

std::string_view ReadString(ByteReader& in) { return in.Text(in.Number<uint64_t>()); }

// The bytes of `count` values of one type; strings stay as they lie, with their lengths.
std::span<const std::byte> ReadValues(ByteReader& in, uint32_t type, uint64_t count,
                                      std::span<const std::byte> file) {
  in.Require(type <= kF64 && type != kArray, "metadata of type ", type);
  if (type != kString) {
    // Before the product below, which then fits in 64 bits.
    in.Require(count <= in.remaining(), "metadata array is longer than the file");
    return in.Bytes(count * kValueBytes[type]);
  }
  const size_t begin = in.position();
  // A string takes at least the 8 bytes of its length, so a false count ends with the file.
  for (uint64_t i = 0; i < count; ++i) ReadString(in);
  return file.subspan(begin, in.position() - begin);
}

GgufMetadata::Value ReadValue(ByteReader& in, std::span<const std::byte> file) {
  GgufMetadata::Value value;
  value.type = in.Number<uint32_t>();
  value.is_array = value.type == kArray;
  if (value.is_array) {
    value.type = in.Number<uint32_t>();
    value.count = in.Number<uint64_t>();
  }
  value.bytes = ReadValues(in, value.type, value.count, file);
  return value;
}

bool IsInteger(uint32_t type) { return type <= kI32 || type == kU64 || type == kI64; }

int64_t DecodeInteger(ByteReader& in, uint32_t type) {
  switch (type) {
    case kU8:
      return in.Number<uint8_t>();
    case kI8:
      return in.Number<int8_t>();
    case kU16:
      return in.Number<uint16_t>();
    case kI16:
      return in.Number<int16_t>();
    case kU32:
      return in.Number<uint32_t>();
    case kI32:
      return in.Number<int32_t>();
    default:
      break;
  }
  const auto wide = in.Number<int64_t>();
  in.Require(type == kI64 || wide >= 0, "integer beyond 63 bits");
  return wide;
}

double DecodeNumber(ByteReader& in, uint32_t type) {
  if (type == kF32) return in.Number<float>();
  if (type == kF64) return in.Number<double>();
  return static_cast<double>(DecodeInteger(in, type));
}

struct TensorHeader {
  TensorInfo info;
  GgufTypeInfo type;
  uint64_t offset = 0;
};

TensorHeader ReadTensorHeader(ByteReader& in) {
  TensorHeader header;
  header.info.name = ReadString(in);
  const std::string label = Cat("tensor ", header.info.name.substr(0, 80));
  const auto dims = in.Number<uint32_t>();
  in.Require(dims <= 8, label, " has ", dims, " dimensions");
  for (uint32_t d = 0; d < dims; ++d) {
    const auto size = in.Number<uint64_t>();
    in.Require(size <= INT64_MAX, label, " has an impossible size");
    // GGUF gives the fastest dimension first.
    header.info.shape.insert(header.info.shape.begin(), static_cast<int64_t>(size));
  }
  const auto number = in.Number<uint32_t>();
  const auto type = FindGgufType(number);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, type.has_value(), in.where(), ": ", label,
                 " is of GGUF type ", GgufTypeName(number), ", which is not supported; take the ",
                 "model as Q8_0, Q4_K_M or F16 (supported: ", ReadableGgufTypes(), ")");
  header.type = *type;
  header.info.dtype = type->dtype;
  header.offset = in.Number<uint64_t>();
  return header;
}

// Bytes that the tensor takes in the file.
uint64_t StoredBytes(const ByteReader& in, const TensorHeader& header) {
  const TensorInfo& info = header.info;
  const auto bytes = TensorBytes(info.dtype, info.shape);
  in.Require(bytes.has_value(), "tensor ", info.name, " has an impossible shape");
  if (header.type.block == 1) return *bytes;
  const bool whole =
      !info.shape.empty() && info.shape.back() % static_cast<int64_t>(header.type.block) == 0;
  in.Require(whole, "tensor ", info.name, ": rows of ", ShapeText(info.shape), " are no whole ",
             header.type.name, " blocks");
  return *bytes / DTypeSize(info.dtype) / header.type.block * header.type.bytes;
}

// Throws unless every tensor lies inside the file.
void RequireWhole(const ByteReader& in, const std::vector<TensorHeader>& headers,
                  uint64_t data_begin, uint64_t file_bytes) {
  constexpr uint64_t kLimit = uint64_t{1} << 62;  // sums of two such numbers fit
  uint64_t end = data_begin;
  const TensorHeader* last = nullptr;
  for (const TensorHeader& header : headers) {
    const uint64_t bytes = StoredBytes(in, header);
    in.Require(header.offset <= kLimit - data_begin && bytes <= kLimit, "tensor ", header.info.name,
               " lies outside the file at byte ", header.offset);
    if (data_begin + header.offset + bytes <= end) continue;
    end = data_begin + header.offset + bytes;
    last = &header;
  }
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, end <= file_bytes, in.where(),
                 ": truncated: ", end - std::min(end, file_bytes), " of ", end,
                 " bytes are missing, tensor ", last ? last->info.name : "",
                 " lies outside the file; the download is incomplete");
}

void ReadMetadata(ByteReader& in, std::span<const std::byte> file, uint64_t count,
                  GgufMetadata& metadata) {
  in.Require(count <= kMaxKeys, "too many metadata keys");
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key(ReadString(in));
    in.Require(key.size() <= 65535 && metadata.values.emplace(key, ReadValue(in, file)).second,
               "metadata key ", key.substr(0, 80), " is too long or appears twice");
  }
}

}  // namespace

const GgufMetadata::Value* GgufMetadata::Find(const std::string& key, bool array) const {
  const auto found = values.find(key);
  if (found == values.end()) return nullptr;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, found->second.is_array == array, where, ": ", key,
                 array ? " is not an array" : " is an array");
  return &found->second;
}

std::optional<int64_t> GgufMetadata::Integer(const std::string& key) const {
  const Value* value = Find(key, false);
  if (!value) return {};
  ByteReader in(value->bytes, where + ": " + key);
  in.Require(IsInteger(value->type), "not an integer");
  return DecodeInteger(in, value->type);
}

std::optional<double> GgufMetadata::Number(const std::string& key) const {
  const Value* value = Find(key, false);
  if (!value) return {};
  ByteReader in(value->bytes, where + ": " + key);
  in.Require(value->type != kString && value->type != kBool, "not a number");
  return DecodeNumber(in, value->type);
}

std::optional<bool> GgufMetadata::Flag(const std::string& key) const {
  const Value* value = Find(key, false);
  if (!value) return {};
  ByteReader in(value->bytes, where + ": " + key);
  in.Require(value->type == kBool, "not true or false");
  return in.Number<uint8_t>() != 0;
}

std::optional<std::string> GgufMetadata::Text(const std::string& key) const {
  const Value* value = Find(key, false);
  if (!value) return {};
  ByteReader in(value->bytes, where + ": " + key);
  in.Require(value->type == kString, "not a text");
  return std::string(ReadString(in));
}

std::vector<std::string> GgufMetadata::Texts(const std::string& key) const {
  std::vector<std::string> texts;
  const Value* value = Find(key, true);
  if (!value) return texts;
  ByteReader in(value->bytes, where + ": " + key);
  in.Require(value->type == kString, "not an array of texts");
  for (uint64_t i = 0; i < value->count; ++i) texts.emplace_back(ReadString(in));
  return texts;
}

std::vector<double> GgufMetadata::Numbers(const std::string& key) const {
  std::vector<double> numbers;
  const Value* value = Find(key, true);
  if (!value) return numbers;
  ByteReader in(value->bytes, where + ": " + key);
  in.Require(value->type != kString && value->type != kBool, "not an array of numbers");
  for (uint64_t i = 0; i < value->count; ++i) numbers.push_back(DecodeNumber(in, value->type));
  return numbers;
}

GgufFile ParseGguf(std::span<const std::byte> file, const std::string& where) {
  ByteReader in(file, where);
  in.Require(in.Text(4) == "GGUF", "not a GGUF file");
  const auto version = in.Number<uint32_t>();
  // A small number read in the wrong byte order has its bits at the top.
  in.Require(version >> 24 == 0, "a big-endian GGUF file; take the little-endian version");
  in.Require(version == 2 || version == 3, "GGUF version ", version, "; 2 and 3 are supported");
  const auto tensors = in.Number<uint64_t>();
  const auto keys = in.Number<uint64_t>();
  GgufFile gguf;
  gguf.metadata.where = where;
  ReadMetadata(in, file, keys, gguf.metadata);
  in.Require(tensors <= kMaxTensors, "too many tensors");
  std::vector<TensorHeader> headers;
  for (uint64_t i = 0; i < tensors; ++i) headers.push_back(ReadTensorHeader(in));
  const int64_t alignment =
      gguf.metadata.Integer("general.alignment").value_or(int64_t{kDefaultAlignment});
  in.Require(alignment > 0 && alignment <= (1 << 20), "impossible general.alignment");
  const auto unit = static_cast<uint64_t>(alignment);
  const uint64_t data_begin = (in.position() + unit - 1) / unit * unit;
  TensorLimits limits(where);
  // All checks before the first span into the data is made.
  for (const TensorHeader& header : headers) limits.Count(header.info);
  if (!headers.empty()) RequireWhole(in, headers, data_begin, file.size());
  for (TensorHeader& header : headers) {
    const auto bytes = file.subspan(data_begin + header.offset, StoredBytes(in, header));
    gguf.tensors.push_back({std::move(header.info), header.type.type, bytes});
  }
  return gguf;
}

GgufSource::GgufSource(const std::filesystem::path& path) : MappedSource(path) {
  const std::vector<std::filesystem::path> parts = GgufParts(path);
  size_t index = 0;
  OpenFiles(parts, [&](std::span<const std::byte> file, const std::string& name) {
    GgufFile gguf = ParseGguf(file, name);
    RequireGgufPart(gguf.metadata, index, parts.size());
    if (index++ == 0) metadata_ = std::move(gguf.metadata);
    std::vector<StoredTensor> tensors;
    for (GgufTensor& tensor : gguf.tensors) {
      tensors.push_back(ContiguousTensor(std::move(tensor.info), tensor.bytes));
      const GgufTypeInfo type = *FindGgufType(static_cast<uint32_t>(tensor.type));
      if (type.block > 1) tensors.back().blocks = type;
    }
    return tensors;
  });
  const auto expected = metadata_.Integer("split.tensors.count");
  LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                 parts.size() == 1 || expected.value_or(0) == static_cast<int64_t>(infos().size()),
                 where(), ": the ", parts.size(), " parts hold ",
                 CountOf(static_cast<int64_t>(infos().size()), "tensor"), ", the first says ",
                 expected.value_or(0), "; the files do not belong together");
}

}  // namespace lwm::io
