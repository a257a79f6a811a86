#include "lwm/io/numpy_pickle_writer.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "lwm/base/error.h"
#include "lwm/io/atomic_output.h"

namespace lwm::io {
namespace {

// The opcodes of protocol 4 that arrays and dicts need.
constexpr char kProto = '\x80', kStop = '.', kEmptyDict = '}', kMark = '(', kSetItems = 'u',
               kShortText = '\x8c', kText = 'X', kGlobal = '\x93', kShortBytes = 'C', kBytes = 'B',
               kBytes8 = '\x8e', kByte = 'K', kInt = 'J', kLong = '\x8a', kNone = 'N',
               kTrue = '\x88', kFalse = '\x89', kTuple1 = '\x85', kTuple3 = '\x87', kTuple = 't',
               kReduce = 'R', kBuild = 'b';

// numpy's code of a type ("f4") and its byte order.
struct TypeCode {
  DType dtype;
  std::string_view code;
};
constexpr TypeCode kTypeCodes[] = {
    {DType::kF64, "f8"}, {DType::kF32, "f4"}, {DType::kF16, "f2"}, {DType::kI64, "i8"},
    {DType::kI32, "i4"}, {DType::kI16, "i2"}, {DType::kI8, "i1"},  {DType::kU64, "u8"},
    {DType::kU32, "u4"}, {DType::kU16, "u2"}, {DType::kU8, "u1"},  {DType::kBool, "b1"},
};

std::string_view CodeOf(const TensorInfo& info) {
  for (const TypeCode& type : kTypeCodes)
    if (type.dtype == info.dtype) return type.code;
  throw Error(ErrorCode::kInvalidArgument,
              Cat("array ", info.name, ": numpy has no type ", SafetensorsName(info.dtype)));
}

// Collects the small values of a pickle; the data of arrays goes to the file directly.
class Assembler {
 public:
  explicit Assembler(BackgroundFile& file) : file_(file) {}

  void Op(char opcode) { pending_ += opcode; }
  void Number(const void* data, size_t bytes) {
    pending_.append(static_cast<const char*>(data), bytes);
  }
  void Text(std::string_view text) {
    const auto length = static_cast<uint32_t>(text.size());
    Op(length < 256 ? kShortText : kText);
    Number(&length, length < 256 ? 1 : 4);
    pending_ += text;
  }
  void Integer(int64_t value) {
    if (value >= 0 && value < 256) {
      Op(kByte);
      return Number(&value, 1);
    }
    const bool is_int = value == static_cast<int32_t>(value);
    if (is_int) {
      Op(kInt);
      return Number(&value, 4);
    }
    Op(kLong);
    Op(8);  // bytes that follow
    Number(&value, 8);
  }
  void Global(std::string_view module, std::string_view name) {
    Text(module);
    Text(name);
    Op(kGlobal);
  }
  void Data(std::span<const std::byte> bytes) {
    const uint64_t length = bytes.size();
    const bool is_short = length <= std::numeric_limits<uint32_t>::max();
    Op(is_short ? kBytes : kBytes8);
    Number(&length, is_short ? 4 : 8);
    Flush();
    file_.Write(bytes.data(), bytes.size());
  }
  void Flush() {
    file_.Write(pending_);
    pending_.clear();
  }

 private:
  BackgroundFile& file_;
  std::string pending_;
};

// dtype("f4", False, True) with the state (3, "<", None, None, None, -1, -1, 0).
void PutDType(Assembler& out, std::string_view code) {
  out.Global("numpy", "dtype");
  out.Text(code);
  out.Op(kFalse);
  out.Op(kTrue);
  out.Op(kTuple3);
  out.Op(kReduce);
  out.Op(kMark);
  out.Integer(3);
  out.Text(code.back() == '1' ? "|" : "<");
  for (int i = 0; i < 3; ++i) out.Op(kNone);
  for (const int64_t value : {-1, -1, 0}) out.Integer(value);
  out.Op(kTuple);
  out.Op(kBuild);
}

// _reconstruct(ndarray, (0,), b"b") with the state (1, shape, dtype, is_fortran, data).
void PutArray(Assembler& out, const TensorInfo& info, std::span<const std::byte> data) {
  out.Global("numpy.core.multiarray", "_reconstruct");
  out.Global("numpy", "ndarray");
  out.Integer(0);
  out.Op(kTuple1);
  out.Op(kShortBytes);
  out.Op(1);  // byte that follows
  out.Op('b');
  out.Op(kTuple3);
  out.Op(kReduce);
  out.Op(kMark);
  out.Integer(1);
  out.Op(kMark);
  for (const int64_t size : info.shape) out.Integer(size);
  out.Op(kTuple);
  PutDType(out, CodeOf(info));
  out.Op(kFalse);
  out.Data(data);
  out.Op(kTuple);
  out.Op(kBuild);
}

std::vector<std::string> PathOf(const std::string& name) {
  std::vector<std::string> path(1);
  for (const char c : name) {
    if (c == '/') {
      path.emplace_back();
    } else {
      path.back() += c;
    }
  }
  for (const std::string& part : path)
    LWM_REQUIRE(!part.empty(), "array name '", name, "' has an empty part");
  return path;
}

struct Entry {
  std::vector<std::string> path;
  TensorInfo info;
};

void RequireTree(const std::vector<Entry>& entries) {
  for (size_t i = 0; i + 1 < entries.size(); ++i) {
    const auto& path = entries[i].path;
    const auto& next = entries[i + 1].path;
    const bool is_prefix =
        path.size() <= next.size() && std::equal(path.begin(), path.end(), next.begin());
    LWM_REQUIRE(!is_prefix, "array name '", entries[i].info.name, "' is repeated or stands above '",
                entries[i + 1].info.name, "'");
  }
}

}  // namespace

void WriteNumpyPickle(const std::filesystem::path& path, std::vector<TensorInfo> infos,
                      const std::function<std::vector<std::byte>(const TensorInfo&)>& read) {
  std::vector<Entry> entries;
  for (const TensorInfo& info : infos) {
    CodeOf(info);
    entries.push_back({PathOf(info.name), info});
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.path < b.path; });
  // Sorted by path, entries of one dict are adjacent: dicts are opened and closed once, and a name
  // that stands above others is its neighbour's prefix.
  RequireTree(entries);
  AtomicOutput output(path);
  Assembler out(output.file());
  const auto open_dict = [&] {
    out.Op(kEmptyDict);
    out.Op(kMark);
  };
  out.Op(kProto);
  out.Op(4);
  open_dict();
  std::vector<std::string> open;  // keys of the dicts being written, below the root
  for (const Entry& entry : entries) {
    const size_t depth = entry.path.size() - 1;
    size_t same = 0;
    while (same < open.size() && same < depth && open[same] == entry.path[same]) ++same;
    for (; open.size() > same; open.pop_back()) out.Op(kSetItems);
    for (; open.size() < depth; open_dict()) {
      open.push_back(entry.path[open.size()]);
      out.Text(open.back());
    }
    out.Text(entry.path.back());
    const std::vector<std::byte> data = read(entry.info);
    LWM_CHECK(data.size() == TensorBytes(entry.info), "bytes of array ", entry.info.name);
    PutArray(out, entry.info, data);
  }
  for (size_t i = 0; i <= open.size(); ++i) out.Op(kSetItems);
  out.Op(kStop);
  out.Flush();
  output.Commit();
}

}  // namespace lwm::io
