#include "lwm/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <set>

#include "lwm/base/error.h"
#include "lwm/base/json.h"

namespace lwm::io {
namespace {

static_assert(std::endian::native == std::endian::little, "formats are read without byte swaps");

constexpr uint64_t kLengthBytes = 8;
// Bounds the JSON tree, which takes many times the header's size.
constexpr uint64_t kMaxHeaderBytes = uint64_t{16} << 20;

struct Entry {
  TensorInfo info;
  uint64_t begin = 0, end = 0;  // within the data
};

template <class... Parts>
void Require(bool condition, const std::string& where, const Parts&... parts) {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, condition, where, ": ", parts...);
}

std::vector<uint64_t> UnsignedArray(const Json& json, const char* key, const std::string& where) {
  const bool is_array = json.is_object() && json.contains(key) && json.at(key).is_array();
  Require(is_array, where, "field \"", key, "\" is not an array");
  std::vector<uint64_t> values;
  for (const Json& item : json.at(key)) {
    Require(item.is_number_unsigned(), where, "field \"", key, "\" holds ",
            item.dump().substr(0, 40));
    values.push_back(item.get<uint64_t>());
  }
  return values;
}

Entry ParseEntry(const std::string& name, const Json& json, const std::string& file) {
  const std::string where = Cat(file, ": tensor ", name);
  Entry entry;
  entry.info.name = name;
  const auto dtype_name = JsonGet<std::string>(json, "dtype", where);
  const auto dtype = DTypeFromSafetensors(dtype_name);
  const bool is_fp8 = dtype_name.starts_with("F8_"), is_fp4 = dtype_name.starts_with("F4");
  Require(dtype.has_value(), where, "dtype \"", dtype_name, "\" is not supported",
          is_fp8 || is_fp4
              ? Cat(" (weights quantised to FP", is_fp8 ? 8 : 4, "; take the model in BF16 or F16)")
              : std::string());
  entry.info.dtype = *dtype;
  for (const uint64_t size : UnsignedArray(json, "shape", where)) {
    Require(size <= INT64_MAX, where, "impossible size ", size);
    entry.info.shape.push_back(static_cast<int64_t>(size));
  }
  const auto offsets = UnsignedArray(json, "data_offsets", where);
  Require(offsets.size() == 2, where, "data_offsets is not a pair");
  entry.begin = offsets[0];
  entry.end = offsets[1];
  Require(entry.begin <= entry.end, where, "bytes [", entry.begin, ", ", entry.end,
          ") end before they begin");
  const auto bytes = TensorBytes(entry.info.dtype, entry.info.shape);
  Require(bytes == entry.end - entry.begin, where, dtype_name, " ", ShapeText(entry.info.shape),
          " does not fill its ", entry.end - entry.begin, " bytes");
  return entry;
}

std::map<std::string, std::string> ParseMetadata(const Json& json, const std::string& where) {
  Require(json.is_object(), where, "__metadata__ is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : json.items()) {
    Require(value.is_string(), where, "metadata \"", key, "\" is not a string");
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

std::string_view HeaderText(std::span<const std::byte> file, const std::string& where) {
  Require(file.size() >= kLengthBytes, where, "not a safetensors file: ", file.size(),
          " bytes, truncated or empty");
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  Require(length <= kMaxHeaderBytes, where, "header of ", length,
          " bytes, more than 16 MiB: damaged, or not safetensors");
  Require(length <= file.size() - kLengthBytes, where, "truncated: the header takes ", length,
          " bytes, more than ", length - (file.size() - kLengthBytes),
          " bytes are missing; the download is incomplete");
  return {reinterpret_cast<const char*>(file.data()) + kLengthBytes, length};
}

// The format forbids holes and overlaps (README of huggingface/safetensors), so that no bytes hide
// behind the tensors. It also finds downloads that ended early.
void RequireExactCover(const std::vector<Entry>& entries, uint64_t data_bytes,
                       const std::string& where) {
  uint64_t end = 0;
  for (const Entry& entry : entries) {
    Require(entry.begin == end, where, "tensor ", entry.info.name, " starts at byte ", entry.begin,
            " of the data, the one ", "before it ends at ", end);
    end = entry.end;
  }
  Require(end <= data_bytes, where, "truncated: ", end - std::min(end, data_bytes), " of ", end,
          " bytes of data are missing; the download is incomplete");
  Require(end == data_bytes, where, "the tensors end at byte ", end, " of the data, the file has ",
          data_bytes);
}

}  // namespace

SafetensorsLayout ParseSafetensors(std::span<const std::byte> file, const std::string& where) {
  const std::string_view header = HeaderText(file, where);
  const Json json = ParseJson(header, where + ": header");
  Require(json.is_object(), where, "header is not a JSON object");
  const uint64_t data_offset = kLengthBytes + header.size();
  const uint64_t data_bytes = file.size() - data_offset;
  SafetensorsLayout layout;
  std::vector<Entry> entries;
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      layout.metadata = ParseMetadata(value, where);
    } else {
      entries.push_back(ParseEntry(name, value, where));
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  RequireExactCover(entries, data_bytes, where);
  for (Entry& entry : entries) {
    layout.infos.push_back(std::move(entry.info));
    layout.offsets.push_back(data_offset + entry.begin);
  }
  return layout;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(path), layout_(ParseSafetensors(file_.bytes(), path.string())) {
  for (size_t i = 0; i < layout_.infos.size(); ++i) index_[layout_.infos[i].name] = i;
}

size_t SafetensorsFile::IndexOf(const std::string& name) const {
  const auto found = index_.find(name);
  LWM_REQUIRE_AS(ErrorCode::kNotFound, found != index_.end(), path().string(), ": no tensor ",
                 name);
  return found->second;
}

std::span<const std::byte> SafetensorsFile::bytes(const std::string& name) const {
  const size_t i = IndexOf(name);
  return file_.bytes().subspan(layout_.offsets[i], TensorBytes(layout_.infos[i]));
}

void SafetensorsFile::Forget(const std::string& name) const {
  const size_t i = IndexOf(name);
  file_.Forget(layout_.offsets[i], TensorBytes(layout_.infos[i]));
}

namespace {

std::vector<TensorInfo> CheckedInfos(std::vector<TensorInfo> infos) {
  std::set<std::string> names;
  uint64_t end = 0;
  for (const TensorInfo& info : infos) {
    const auto bytes = TensorBytes(info.dtype, info.shape);
    LWM_REQUIRE(bytes && *bytes <= INT64_MAX - end, "tensor ", info.name, ": impossible shape ",
                ShapeText(info.shape));
    LWM_REQUIRE(names.insert(info.name).second && info.name != "__metadata__", "tensor name ",
                info.name, " is used twice or reserved");
    end += *bytes;
  }
  return infos;
}

std::string MakeHeader(const std::vector<TensorInfo>& infos,
                       const std::map<std::string, std::string>& metadata) {
  // Written by hand: a JSON object would sort the names, and the order is the file's. Spaces at the
  // end align the data to 8 bytes.
  std::string header = "{\"__metadata__\":" + Json(metadata).dump();
  uint64_t offset = 0;
  for (const TensorInfo& info : infos) {
    const uint64_t end = offset + TensorBytes(info);
    const Json entry = {{"dtype", SafetensorsName(info.dtype)},
                        {"shape", info.shape},
                        {"data_offsets", {offset, end}}};
    header += "," + Json(info.name).dump() + ":" + entry.dump();
    offset = end;
  }
  header += "}";
  header.append((kLengthBytes - header.size() % kLengthBytes) % kLengthBytes, ' ');
  return header;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorInfo> infos,
                                     const std::map<std::string, std::string>& metadata)
    : infos_(CheckedInfos(std::move(infos))), output_(path) {
  const std::string header = MakeHeader(infos_, metadata);
  const uint64_t length = header.size();
  output_.file().Write(&length, kLengthBytes);
  output_.file().Write(header);
  remaining_ = infos_.empty() ? 0 : TensorBytes(infos_[0]);
}

void SafetensorsWriter::SkipEmpty() {
  while (current_ < infos_.size() && remaining_ == 0) {
    ++current_;
    remaining_ = current_ < infos_.size() ? TensorBytes(infos_[current_]) : 0;
  }
}

void SafetensorsWriter::Write(const std::string& name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  SkipEmpty();
  LWM_CHECK(current_ < infos_.size() && infos_[current_].name == name, "tensor ", name,
            " written out of order");
  LWM_CHECK(bytes.size() <= remaining_, "tensor ", name, " has more bytes than declared");
  output_.file().Write(bytes.data(), bytes.size());
  remaining_ -= bytes.size();
}

void SafetensorsWriter::Finish() {
  SkipEmpty();
  LWM_CHECK(current_ == infos_.size(), "tensor ", infos_[current_].name, " was not written");
  output_.Commit();
}

}  // namespace lwm::io
