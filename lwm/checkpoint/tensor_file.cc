#include "lwm/checkpoint/tensor_file.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "lwm/base/error.h"
#include "lwm/io/safetensors.h"

namespace lwm::checkpoint {
namespace {

constexpr std::pair<io::DType, at::ScalarType> kTypes[] = {
    {io::DType::kF64, at::kDouble}, {io::DType::kF32, at::kFloat},
    {io::DType::kF16, at::kHalf},   {io::DType::kBF16, at::kBFloat16},
    {io::DType::kI64, at::kLong},   {io::DType::kI32, at::kInt},
    {io::DType::kI16, at::kShort},  {io::DType::kI8, at::kChar},
    {io::DType::kU64, at::kUInt64}, {io::DType::kU32, at::kUInt32},
    {io::DType::kU16, at::kUInt16}, {io::DType::kU8, at::kByte},
    {io::DType::kBool, at::kBool},
};

// Below LibTorch's grain: waking threads for a piece that fits the cache would cost more, and many
// times more on a busy machine.
constexpr int64_t kSerialElements = 30000;
constexpr int64_t kTile = 32;  // elements each way: lines of both sides stay in the first cache

// Columns [begin, begin + strip.size(0)) of the matrix become the rows of the strip.
template <class Bits>
void TransposeStrip(const at::Tensor& matrix, int64_t begin, const at::Tensor& strip) {
  const int64_t rows = matrix.size(0), cols = matrix.size(1), count = strip.size(0);
  const auto* from = static_cast<const Bits*>(matrix.const_data_ptr()) + begin;
  auto* to = static_cast<Bits*>(strip.data_ptr());
  for (int64_t row = 0; row < rows; row += kTile) {
    const int64_t row_end = std::min(row + kTile, rows);
    for (int64_t c = 0; c < count; ++c)
      for (int64_t r = row; r < row_end; ++r) to[c * rows + r] = from[r * cols + c];
  }
}

// Rows of `from` in the dtype of `to`, a few at a time.
void ConvertRows(const at::Tensor& from, const at::Tensor& to) {
  const int64_t step = std::max<int64_t>(1, kSerialElements / std::max<int64_t>(1, from.size(1)));
  for (int64_t begin = 0; begin < from.size(0); begin += step) {
    const int64_t count = std::min(step, from.size(0) - begin);
    to.narrow(0, begin, count).copy_(InDtype(from.narrow(0, begin, count), to.scalar_type()));
  }
}

}  // namespace

at::ScalarType ToScalarType(config::Dtype dtype) {
  if (dtype == config::Dtype::kF32) return at::kFloat;
  return dtype == config::Dtype::kBF16 ? at::kBFloat16 : at::kHalf;
}

at::ScalarType ToScalarType(io::DType dtype) {
  for (const auto& [stored, scalar] : kTypes)
    if (stored == dtype) return scalar;
  throw Error(ErrorCode::kInternal, "dtype without a LibTorch name");
}

io::DType ToDType(at::ScalarType dtype) {
  for (const auto& [stored, scalar] : kTypes)
    if (scalar == dtype) return stored;
  throw Error(ErrorCode::kInvalidArgument,
              Cat("tensors of type ", at::toString(dtype), " cannot be written"));
}

std::span<std::byte> TensorBytes(const at::Tensor& tensor) {
  LWM_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(), "tensor is not plain memory");
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

at::Tensor ReadTensor(const io::TensorSource& source, const std::string& name) {
  const size_t index = source.IndexOf(name);
  const io::TensorInfo& info = source.infos()[index];
  at::Tensor tensor = at::empty(info.shape, ToScalarType(info.dtype));
  const std::span<std::byte> bytes = TensorBytes(tensor);
  const bool in_blocks = source.Encoding(index) != io::SafetensorsName(info.dtype);
  if (!in_blocks || tensor.numel() == 0) {
    source.ReadRange(index, 0, bytes);
    return tensor;
  }
  // Decoding blocks is arithmetic, so it is worth the threads; rows hold whole blocks.
  const int64_t rows = tensor.size(0), row_elements = tensor.numel() / rows;
  const int64_t grain = std::max<int64_t>(1, kSerialElements / row_elements);
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    const auto row_bytes = static_cast<size_t>(row_elements) * tensor.element_size();
    const size_t offset = static_cast<size_t>(begin) * row_bytes;
    source.ReadRange(index, offset,
                     bytes.subspan(offset, static_cast<size_t>(end - begin) * row_bytes));
  });
  return tensor;
}

at::Tensor ReadTensorRows(const io::TensorSource& source, const std::string& name, int64_t begin,
                          int64_t rows) {
  const size_t index = source.IndexOf(name);
  const io::TensorInfo& info = source.infos()[index];
  LWM_CHECK(!info.shape.empty() && begin >= 0 && rows >= 0 && begin + rows <= info.shape[0],
            "rows outside tensor ", name);
  std::vector<int64_t> shape = info.shape;
  shape[0] = rows;
  at::Tensor tensor = at::empty(shape, ToScalarType(info.dtype));
  const uint64_t row_bytes =
      info.shape[0] == 0 ? 0 : io::TensorBytes(info) / static_cast<uint64_t>(info.shape[0]);
  source.ReadRange(index, row_bytes * static_cast<uint64_t>(begin), TensorBytes(tensor));
  return tensor;
}

at::Tensor ViewTensor(const std::shared_ptr<const io::TensorSource>& source,
                      const std::string& name) {
  const size_t index = source->IndexOf(name);
  const std::span<const std::byte> view = source->View(index);
  // No view: the bytes are quantised, strided, unaligned or in pieces.
  if (view.empty()) return ReadTensor(*source, name);
  const io::TensorInfo& info = source->infos()[index];
  return at::from_blob(
      // from_blob has no const form; the map is read-only, so a write would end the process.
      const_cast<std::byte*>(view.data()), info.shape,
      [source, index](void*) { source->Forget(index); },
      at::TensorOptions(ToScalarType(info.dtype)));
}

at::Tensor InDtype(const at::Tensor& tensor, at::ScalarType dtype) {
  const bool both_short = tensor.element_size() == 2 && c10::elementSize(dtype) == 2;
  // LibTorch goes from bf16 to f16 number by number, four times slower than by way of f32.
  const bool detour = both_short && dtype != tensor.scalar_type();
  return (detour ? tensor.to(at::kFloat) : tensor).to(dtype).contiguous();
}

void ForEachPiece(const at::Tensor& tensor, const std::function<void(const at::Tensor&)>& use) {
  if (tensor.dim() == 0 || tensor.numel() <= kSerialElements || !tensor.is_contiguous())
    return use(tensor);
  const int64_t rows = tensor.size(0);
  const int64_t step = std::max<int64_t>(1, kSerialElements / (tensor.numel() / rows));
  for (int64_t begin = 0; begin < rows; begin += step)
    use(tensor.slice(0, begin, std::min(rows, begin + step)));
}

void ForEachTransposedPiece(const at::Tensor& matrix, at::ScalarType dtype,
                            const std::function<void(const at::Tensor&)>& use) {
  const int64_t rows = matrix.size(0), cols = matrix.size(1), size = matrix.element_size();
  LWM_CHECK(matrix.is_contiguous() && (size == 2 || size == 4),
            "not a plain matrix of 2 or 4 bytes");
  const bool same = dtype == matrix.scalar_type();
  const at::Tensor strips = at::empty({kTile, rows}, matrix.options());
  const at::Tensor converted = same ? strips : at::empty({kTile, rows}, dtype);
  for (int64_t begin = 0; begin < cols; begin += kTile) {
    const int64_t count = std::min(kTile, cols - begin);
    const at::Tensor strip = strips.narrow(0, 0, count), piece = converted.narrow(0, 0, count);
    if (size == 2)
      TransposeStrip<uint16_t>(matrix, begin, strip);
    else
      TransposeStrip<uint32_t>(matrix, begin, strip);
    if (!same) ConvertRows(strip, piece);
    use(piece);
  }
}

std::map<std::string, at::Tensor> LoadTensors(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  std::map<std::string, at::Tensor> tensors;
  for (const io::TensorInfo& info : file.infos()) {
    at::Tensor tensor = at::empty(info.shape, ToScalarType(info.dtype));
    const auto bytes = file.bytes(info.name);
    if (!bytes.empty()) std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
    tensors.emplace(info.name, std::move(tensor));
  }
  return tensors;
}

void SaveTensors(const std::filesystem::path& path, const NamedTensors& tensors) {
  // Widest elements first keeps every tensor aligned in the file.
  std::vector<const NamedTensors::value_type*> order;
  for (const auto& named : tensors) order.push_back(&named);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->second.element_size() > b->second.element_size();
  });
  std::vector<io::TensorInfo> infos;
  for (const auto* named : order)
    infos.push_back(
        {named->first, ToDType(named->second.scalar_type()), named->second.sizes().vec()});
  io::SafetensorsWriter writer(path, std::move(infos));
  for (const auto* named : order)
    writer.Write(named->first, TensorBytes(named->second.detach().cpu().contiguous()));
  writer.Finish();
}

}  // namespace lwm::checkpoint
