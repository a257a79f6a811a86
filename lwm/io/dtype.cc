#include "lwm/io/dtype.h"

#include <algorithm>
#include <array>

namespace lwm::io {
namespace {

struct Row {
  DType dtype;
  size_t size;
  std::string_view safetensors, numpy;
};

constexpr std::array<Row, 13> kRows = {{
    {DType::kF64, 8, "F64", "float64"},
    {DType::kF32, 4, "F32", "float32"},
    {DType::kF16, 2, "F16", "float16"},
    {DType::kBF16, 2, "BF16", "bfloat16"},
    {DType::kI64, 8, "I64", "int64"},
    {DType::kI32, 4, "I32", "int32"},
    {DType::kI16, 2, "I16", "int16"},
    {DType::kI8, 1, "I8", "int8"},
    {DType::kU64, 8, "U64", "uint64"},
    {DType::kU32, 4, "U32", "uint32"},
    {DType::kU16, 2, "U16", "uint16"},
    {DType::kU8, 1, "U8", "uint8"},
    {DType::kBool, 1, "BOOL", "bool"},
}};

// The rows stand in the order of the enum.
const Row& RowOf(DType dtype) noexcept { return kRows[static_cast<size_t>(dtype)]; }

std::optional<DType> Find(std::string_view name, std::string_view Row::*column) noexcept {
  const auto row = std::find_if(kRows.begin(), kRows.end(),
                                [&](const Row& candidate) { return candidate.*column == name; });
  return row == kRows.end() ? std::nullopt : std::optional(row->dtype);
}

}  // namespace

size_t DTypeSize(DType dtype) noexcept { return RowOf(dtype).size; }
std::string_view SafetensorsName(DType dtype) noexcept { return RowOf(dtype).safetensors; }
std::string_view NumpyName(DType dtype) noexcept { return RowOf(dtype).numpy; }

std::optional<DType> DTypeFromSafetensors(std::string_view name) noexcept {
  return Find(name, &Row::safetensors);
}

std::optional<DType> DTypeFromNumpy(std::string_view name) noexcept {
  return Find(name, &Row::numpy);
}

}  // namespace lwm::io
