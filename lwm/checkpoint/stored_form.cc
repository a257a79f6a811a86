#include "lwm/checkpoint/stored_form.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/tensor_file.h"

namespace lwm::checkpoint {
namespace {

using io::GgufType;

io::GgufTypeInfo InfoOf(GgufType type) { return *io::FindGgufType(static_cast<uint32_t>(type)); }

// Quantises in pieces that stay in the cache.
void WriteBlocks(const at::Tensor& weight, GgufType type,
                 const std::function<void(std::span<const std::byte>)>& write) {
  constexpr int64_t kPiece = 512 * io::kGgufBlock;  // too few for LibTorch to wake threads
  const size_t block_bytes = InfoOf(type).bytes;
  const at::Tensor flat = weight.contiguous().view(-1);
  const at::Tensor values = at::empty({kPiece}, at::kFloat);
  std::vector<std::byte> blocks(kPiece / io::kGgufBlock * block_bytes);
  for (int64_t begin = 0; begin < flat.numel(); begin += kPiece) {
    const int64_t count = std::min(kPiece, flat.numel() - begin);
    const at::Tensor part = values.narrow(0, 0, count);
    part.copy_(flat.narrow(0, begin, count));
    const auto stored =
        std::span(blocks).first(static_cast<size_t>(count) / io::kGgufBlock * block_bytes);
    io::Quantize(type, {part.const_data_ptr<float>(), static_cast<size_t>(count)}, stored);
    write(stored);
  }
}

}  // namespace

GgufType StoredType(const model::TensorSpec& spec, GgufType type) {
  if (spec.shape.size() < 2) return GgufType::kF32;
  const auto block = static_cast<int64_t>(InfoOf(type).block);
  return spec.shape.back() % block == 0 ? type : GgufType::kF16;
}

void WriteStoredForm(const at::Tensor& weight, GgufType type, const std::string& name,
                     const std::function<void(std::span<const std::byte>)>& write) {
  const io::GgufTypeInfo info = InfoOf(type);
  if (info.block > 1) return WriteBlocks(weight, type, write);
  const at::ScalarType dtype = ToScalarType(info.dtype);
  ForEachPiece(weight, [&](const at::Tensor& part) {
    const at::Tensor stored = InDtype(part, dtype);
    RequireFits(name, stored);
    write(TensorBytes(stored));
  });
}

GgufType GgufTypeOf(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return GgufType::kF32;
    case at::kHalf:
      return GgufType::kF16;
    case at::kBFloat16:
      return GgufType::kBF16;
    default:
      throw Error(ErrorCode::kInvalidArgument,
                  Cat("weights are written as f32, bf16 or f16, not ", at::toString(dtype)));
  }
}

}  // namespace lwm::checkpoint
