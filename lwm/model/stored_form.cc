#include "lwm/model/stored_form.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "lwm/base/error.h"
#include "lwm/model/model_directory.h"
#include "lwm/model/tensor_file.h"

namespace lwm::model {
namespace {

using io::GgufType;

io::GgufTypeInfo InfoOf(GgufType type) { return *io::FindGgufType(static_cast<uint32_t>(type)); }

at::Tensor Quantised(const at::Tensor& weight, GgufType type) {
  const at::Tensor values = weight.to(at::kFloat).contiguous();
  const size_t block_bytes = InfoOf(type).bytes;
  const int64_t blocks = values.numel() / static_cast<int64_t>(io::kGgufBlock);
  at::Tensor stored = at::empty({blocks * static_cast<int64_t>(block_bytes)}, at::kByte);
  const float* from = values.const_data_ptr<float>();
  const std::span<std::byte> to = TensorBytes(stored);
  at::parallel_for(0, blocks, 4096, [&](int64_t begin, int64_t end) {
    const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
    io::Quantize(type, {from + first * io::kGgufBlock, count * io::kGgufBlock},
                 to.subspan(first * block_bytes, count * block_bytes));
  });
  return stored;
}

}  // namespace

GgufType StoredType(const TensorSpec& spec, GgufType type) {
  if (spec.shape.size() < 2) return GgufType::kF32;
  const auto block = static_cast<int64_t>(InfoOf(type).block);
  return spec.shape.back() % block == 0 ? type : GgufType::kF16;
}

void WriteStoredForm(const at::Tensor& weight, GgufType type, const std::string& name,
                     const std::function<void(std::span<const std::byte>)>& write) {
  const io::GgufTypeInfo info = InfoOf(type);
  if (info.block > 1) return write(TensorBytes(Quantised(weight, type)));  // worth all threads
  const at::ScalarType dtype = ToScalarType(info.dtype);
  ForEachPiece(weight, [&](const at::Tensor& part) {
    const at::Tensor stored = part.to(dtype).contiguous();
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

}  // namespace lwm::model
