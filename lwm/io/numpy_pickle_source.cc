#include "lwm/io/numpy_pickle_source.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "lwm/base/error.h"
#include "lwm/io/pickle.h"
#include "lwm/io/tensor_limits.h"

namespace lwm::io {
namespace {

constexpr int kMaxDepth = 32;

struct Function {
  std::string_view module, name;
};
constexpr Function kReconstruct[] = {{"numpy.core.multiarray", "_reconstruct"},
                                     {"numpy._core.multiarray", "_reconstruct"}};
constexpr Function kFromBuffer[] = {{"numpy.core.numeric", "_frombuffer"},
                                    {"numpy._core.numeric", "_frombuffer"}};
constexpr Function kJaxArray[] = {{"jax._src.array", "_reconstruct_array"}};
constexpr Function kDType[] = {{"numpy", "dtype"}};
constexpr Function kFrozenDict[] = {{"flax.core.frozen_dict", "FrozenDict"}};
constexpr Function kEncode[] = {{"_codecs", "encode"}};
constexpr Function kTypes[] = {{"numpy", "ndarray"}, {"ml_dtypes", "bfloat16"}};

bool IsOneOf(std::string_view module, std::string_view name, std::span<const Function> list) {
  return std::any_of(list.begin(), list.end(), [&](const Function& function) {
    return function.module == module && function.name == name;
  });
}

bool IsAllowed(std::string_view module, std::string_view name) {
  for (const std::span<const Function> list :
       {std::span<const Function>(kReconstruct), std::span<const Function>(kFromBuffer),
        std::span<const Function>(kJaxArray), std::span<const Function>(kDType),
        std::span<const Function>(kFrozenDict), std::span<const Function>(kEncode),
        std::span<const Function>(kTypes)})
    if (IsOneOf(module, name, list)) return true;
  return false;
}

struct TypeCode {
  std::string_view code;
  DType dtype;
};
constexpr TypeCode kTypeCodes[] = {
    {"f8", DType::kF64}, {"f4", DType::kF32}, {"f2", DType::kF16}, {"i8", DType::kI64},
    {"i4", DType::kI32}, {"i2", DType::kI16}, {"i1", DType::kI8},  {"u8", DType::kU64},
    {"u4", DType::kU32}, {"u2", DType::kU16}, {"u1", DType::kU8},  {"b1", DType::kBool},
};

// The bytes of a text whose characters are all below U+0100. Protocol 2 knows no bytes: Python
// writes them as latin-1 text and a call of _codecs.encode.
std::optional<std::vector<std::byte>> DecodeLatin1(std::string_view text) {
  std::vector<std::byte> bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto lead = static_cast<uint8_t>(text[i]);
    if (lead < 0x80) {
      bytes.push_back(std::byte{lead});
    } else {
      const bool pair = (lead == 0xc2 || lead == 0xc3) && i + 1 < text.size() &&
                        (static_cast<uint8_t>(text[i + 1]) & 0xc0) == 0x80;
      if (!pair) return {};
      bytes.push_back(static_cast<std::byte>((lead << 6) | (text[++i] & 0x3f)));
    }
  }
  return bytes;
}

class TreeReader {
 public:
  explicit TreeReader(const Pickle& pickle) : pickle_(pickle), limits_(pickle.where()) {}

  NumpyTree Run() {
    ReadNode(pickle_.root(), "", 0);
    return std::move(tree_);
  }

 private:
  using Arguments = std::span<const PickleId>;

  template <class... Parts>
  void Require(bool condition, const Parts&... parts) const {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, condition, pickle_.where(), ": ", parts...);
  }

  Arguments CallOf(PickleId id, std::span<const Function> functions, size_t least) const {
    for (const Function& function : functions) {
      const auto arguments = pickle_.CallOf(id, function.module, function.name, least);
      if (!arguments.empty()) return arguments;
    }
    return {};
  }

  void ReadNode(PickleId id, const std::string& name, int depth) {
    Require(depth < kMaxDepth && name.size() <= 4096, "dicts are nested too deep");
    // A dict may stand in the tree many times: every visit counts.
    Require(++visited_ <= 1'000'000, "too many entries");
    if (const auto frozen = CallOf(id, kFrozenDict, 1); !frozen.empty())
      return ReadNode(frozen[0], name, depth + 1);
    if (pickle_[id].kind == PickleValue::Kind::kCall) return Add(name, ReadArray(id, name));
    Require(pickle_[id].kind == PickleValue::Kind::kDict, name.empty() ? "the root" : name,
            " is neither a dict nor an array");
    const auto entries = pickle_.Entries(id);
    for (size_t i = 0; i < entries.size(); i += 2) {
      const std::string key(pickle_.Text(entries[i]));
      ReadNode(entries[i + 1], name.empty() ? key : name + "/" + key, depth + 1);
    }
  }

  StridedTensor ReadArray(PickleId id, const std::string& name) {
    if (const auto array = CallOf(id, kFromBuffer, 4); !array.empty()) {
      const std::string_view order = pickle_.Text(array[3]);
      return MakeArray(array[2], array[1], order == "F", array[0]);
    }
    if (const auto jax = CallOf(id, kJaxArray, 3); !jax.empty()) return ReadState(jax[2]);
    Require(!CallOf(id, kReconstruct, 1).empty() && pickle_[id].has_state, name,
            " is not an array");
    return ReadState(pickle_[id].state);
  }

  // __setstate__ of an array: (version, shape, dtype, is_fortran, data).
  StridedTensor ReadState(PickleId id) {
    const auto state = pickle_.Tuple(id, 5);
    const PickleValue& fortran = pickle_[state[3]];
    return MakeArray(state[1], state[2], fortran.integer != 0, state[4]);
  }

  StridedTensor MakeArray(PickleId shape, PickleId dtype, bool fortran, PickleId data) {
    StridedTensor array;
    array.dtype = ReadDType(dtype);
    array.shape = pickle_.Integers(shape);
    Require(TensorBytes(array.dtype, array.shape).has_value(), "array has an impossible shape ",
            ShapeText(array.shape));
    std::vector<int64_t> order = array.shape;
    if (fortran) std::reverse(order.begin(), order.end());
    array.strides = ContiguousStrides(order);
    if (fortran) std::reverse(array.strides.begin(), array.strides.end());
    array.storage = ReadData(data);
    Require(TensorBytes(array.dtype, array.shape) == array.storage.size(), array.storage.size(),
            " bytes do not fill an array ", ShapeText(array.shape));
    return array;
  }

  DType ReadDType(PickleId id) {
    const auto arguments = CallOf(id, kDType, 1);
    Require(!arguments.empty(), "array without a numpy type");
    if (pickle_.IsGlobal(arguments[0], "ml_dtypes", "bfloat16")) return DType::kBF16;
    const std::string_view code = pickle_.Text(arguments[0]);
    const auto known = std::find_if(std::begin(kTypeCodes), std::end(kTypeCodes),
                                    [&](const TypeCode& type) { return type.code == code; });
    Require(known != std::end(kTypeCodes), "numpy type ", code.substr(0, 20), " is not supported");
    if (pickle_[id].has_state) {
      const auto state = pickle_.Tuple(pickle_[id].state, 2);
      Require(pickle_.Text(state[1]) != ">", "big-endian arrays are not supported");
    }
    return known->dtype;
  }

  std::span<const std::byte> ReadData(PickleId id) {
    if (const auto encode = CallOf(id, kEncode, 1); !encode.empty())
      return Decoded(pickle_.Text(encode[0]));
    Require(pickle_[id].kind == PickleValue::Kind::kBytes, "array without data");
    return std::as_bytes(std::span(pickle_[id].text.data(), pickle_[id].text.size()));
  }

  std::span<const std::byte> Decoded(std::string_view text) {
    // Once per text, however many arrays name it: decoded memory stays below the file's size.
    const auto [at, is_new] = decoded_.try_emplace(text.data());
    if (is_new) {
      auto bytes = DecodeLatin1(text);
      Require(bytes.has_value(), "array data is not latin-1 text");
      tree_.decoded.push_back(std::move(*bytes));
      at->second = tree_.decoded.back();
    }
    return at->second;
  }

  void Add(const std::string& name, StridedTensor array) {
    Require(!name.empty(), "an array without a name");
    limits_.Count({name, array.dtype, array.shape});
    CheckStrided(array, Cat(pickle_.where(), ": array ", name));
    tree_.tensors.push_back({name, std::move(array)});
  }

  const Pickle& pickle_;
  TensorLimits limits_;
  NumpyTree tree_;
  std::unordered_map<const char*, std::span<const std::byte>> decoded_;
  size_t visited_ = 0;
};

}  // namespace

NumpyTree ParseNumpyPickle(std::span<const std::byte> file, const std::string& where) {
  const Pickle pickle(file, where, IsAllowed);
  return TreeReader(pickle).Run();
}

NumpyPickleSource::NumpyPickleSource(const std::filesystem::path& path) : MappedSource(path) {
  Open(path, [&](std::span<const std::byte> file, const std::string& name) {
    NumpyTree tree = ParseNumpyPickle(file, name);
    decoded_ = std::move(tree.decoded);
    return std::move(tree.tensors);
  });
}

}  // namespace lwm::io
