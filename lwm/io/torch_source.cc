#include "lwm/io/torch_source.h"

#include <algorithm>
#include <map>
#include <optional>

#include "lwm/io/byte_reader.h"
#include "lwm/io/pickle.h"
#include "lwm/io/tensor_limits.h"
#include "lwm/io/zip.h"

namespace lwm::io {
namespace {

struct StorageType {
  std::string_view name;
  DType dtype;
};
constexpr StorageType kStorageTypes[] = {
    {"DoubleStorage", DType::kF64},    {"FloatStorage", DType::kF32}, {"HalfStorage", DType::kF16},
    {"BFloat16Storage", DType::kBF16}, {"LongStorage", DType::kI64},  {"IntStorage", DType::kI32},
    {"ShortStorage", DType::kI16},     {"CharStorage", DType::kI8},   {"ByteStorage", DType::kU8},
    {"BoolStorage", DType::kBool},
};
constexpr std::string_view kRebuild = "_rebuild_tensor_v2", kParameter = "_rebuild_parameter";
constexpr int kMaxDepth = 16;

std::optional<DType> StorageDType(std::string_view name) {
  for (const StorageType& type : kStorageTypes)
    if (type.name == name) return type.dtype;
  return {};
}

// Globals that a state dict of torch.save needs. They become names in the values, never calls.
bool IsAllowed(std::string_view module, std::string_view name) {
  if (module == "torch") return StorageDType(name).has_value();
  if (module == "torch._utils") return name == kRebuild || name == kParameter;
  return module == "collections" && name == "OrderedDict";
}

// Reads tensors out of a pickled state dict.
class StateDictReader {
 public:
  using Entries = std::map<std::string, ZipEntry>;
  StateDictReader(const Pickle& pickle, const Entries& entries, std::string folder)
      : pickle_(pickle), entries_(entries), folder_(std::move(folder)), limits_(pickle.where()) {}

  std::vector<StoredTensor> Run() {
    ReadDict(pickle_.root(), "", 0);
    return std::move(tensors_);
  }

 private:
  template <class... Parts>
  void Require(bool condition, const Parts&... parts) const {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, condition, pickle_.where(), ": ", parts...);
  }

  void ReadDict(PickleId dict, const std::string& prefix, int depth) {
    // Dicts may contain themselves or repeat by the memo: depth, visits and names are bounded.
    Require(depth < kMaxDepth, "dicts are nested too deep");
    const auto entries = pickle_.Entries(dict);
    for (size_t i = 0; i < entries.size(); i += 2) {
      Require(++visited_ <= 1'000'000 && prefix.size() <= 4096,
              "too many dict entries, or names too long");
      if (pickle_[entries[i]].kind != PickleValue::Kind::kText) continue;
      ReadValue(entries[i + 1], prefix + std::string(pickle_.Text(entries[i])), depth);
    }
  }

  void ReadValue(PickleId value, const std::string& name, int depth) {
    const auto parameter = pickle_.CallOf(value, "torch._utils", kParameter, 1);
    const PickleId inner = parameter.empty() ? value : parameter[0];
    const auto rebuild = pickle_.CallOf(inner, "torch._utils", kRebuild, 4);
    if (!rebuild.empty()) return AddTensor(name, rebuild);
    const bool ordered = pickle_[inner].kind == PickleValue::Kind::kCall &&
                         pickle_.IsGlobal(pickle_[inner].items[0], "collections", "OrderedDict");
    if (ordered || pickle_[inner].kind == PickleValue::Kind::kDict)
      ReadDict(inner, name + ".", depth + 1);
  }

  void AddTensor(const std::string& name, std::span<const PickleId> arguments) {
    StridedTensor data = ReadStorage(name, arguments[0]);
    data.offset = pickle_.Integer(arguments[1]);
    data.shape = pickle_.Integers(arguments[2]);
    data.strides = pickle_.Integers(arguments[3]);
    limits_.Count({name, data.dtype, data.shape});
    CheckStrided(data, Cat(pickle_.where(), ": tensor ", name));
    tensors_.push_back({name, std::move(data)});
  }

  // The persistent id ("storage", torch.FloatStorage, "0", "cpu", elements) names an entry.
  StridedTensor ReadStorage(const std::string& name, PickleId reference) {
    const PickleValue& persistent = pickle_[reference];
    Require(persistent.kind == PickleValue::Kind::kPersistent, "tensor ", name, " has no storage");
    const auto id = pickle_.Tuple(persistent.items[0], 5);
    const PickleValue& type = pickle_[id[1]];
    const bool known = type.kind == PickleValue::Kind::kGlobal && type.text == "torch" &&
                       StorageDType(type.name).has_value();
    Require(known, "tensor ", name, " has an unknown storage type");
    StridedTensor data;
    data.dtype = *StorageDType(type.name);
    const auto entry = entries_.find(folder_ + "data/" + std::string(pickle_.Text(id[2])));
    Require(entry != entries_.end(), "tensor ", name, ": its storage is not in the file");
    // The pickle states elements, the archive bytes: the tensor gets no more than both give.
    const int64_t elements = pickle_.Integer(id[4]);
    const auto bytes = TensorBytes(data.dtype, {elements});
    const auto stored = entry->second.bytes;
    Require(bytes && *bytes <= stored.size(), "tensor ", name, ": storage of ", elements,
            " elements has only ", stored.size(), " bytes");
    data.storage = stored.first(*bytes);
    return data;
  }

  const Pickle& pickle_;
  const Entries& entries_;
  std::string folder_;
  TensorLimits limits_;
  std::vector<StoredTensor> tensors_;
  size_t visited_ = 0;
};

// Bytes of all storages that a pickle names; 0 when it names none.
uint64_t BytesOfStorages(const Pickle& pickle) {
  std::map<std::string_view, uint64_t> bytes_of;
  for (PickleId id = 0; id < pickle.size(); ++id) {
    if (pickle[id].kind != PickleValue::Kind::kPersistent) continue;
    const auto storage = pickle.Tuple(pickle[id].items[0], 5);
    const auto dtype = StorageDType(pickle[storage[1]].name);
    const auto bytes = dtype ? TensorBytes(*dtype, {pickle.Integer(storage[4])}) : std::nullopt;
    bytes_of[pickle.Text(storage[2])] = bytes.value_or(0);
  }
  uint64_t sum = 0;
  for (const auto& [key, bytes] : bytes_of)
    sum = std::min(sum + std::min(bytes, uint64_t{1} << 60), uint64_t{1} << 60);
  return sum;
}

// Says how much of a file whose end is missing was not downloaded, at least: its first entry, the
// pickle, states the sizes of the storages behind it.
void RequireWhole(std::span<const std::byte> file, const std::string& where) {
  if (HasZipDirectory(file)) return;
  uint64_t storages = 0;
  try {
    storages = BytesOfStorages(Pickle(FromFirstEntry(file), where, IsAllowed));
  } catch (const Error&) {  // the pickle itself is cut
  }
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, storages <= file.size(), where, ": truncated: of ",
                 storages, " bytes of weights at least ", storages - file.size(),
                 " are missing; the download is incomplete");
}

}  // namespace

std::vector<StoredTensor> ParseTorchFile(std::span<const std::byte> file,
                                         const std::string& where) {
  RequireWhole(file, where);
  const auto entries = ReadStoredZip(file, where);
  const auto is_pickle = [](const auto& entry) { return entry.first.ends_with("/data.pkl"); };
  const auto found = std::find_if(entries.begin(), entries.end(), is_pickle);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, found != entries.end(), where,
                 ": a zip archive without data.pkl: not written by torch.save");
  const std::string folder = found->first.substr(0, found->first.size() - 8);
  const auto order = entries.find(folder + "byteorder");
  const bool big =
      order != entries.end() && order->second.bytes.size() == 3;  // "big", not "little"
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, !big, where, ": big-endian weights are not supported");
  const ZipEntry& described = found->second;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                 described.crc32 == 0 || Crc32(described.bytes) == described.crc32, where,
                 ": data.pkl is damaged (its checksum differs)");
  const Pickle pickle(described.bytes, where, IsAllowed);
  return StateDictReader(pickle, entries, folder).Run();
}

TorchSource::TorchSource(const std::filesystem::path& path) : MappedSource(path) {
  Open(path, ParseTorchFile);
}

}  // namespace lwm::io
