#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace lwm::io {

// Element types that weight files store, all little-endian.
enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU64, kU32, kU16, kU8, kBool };

// Bytes of one element.
size_t DTypeSize(DType dtype) noexcept;

// "F32", "BF16", "BOOL": the name in a safetensors header, and what `lwm inspect` shows.
std::string_view SafetensorsName(DType dtype) noexcept;
std::optional<DType> DTypeFromSafetensors(std::string_view name) noexcept;

// "float32", "bfloat16", "bool": numpy's name, used by msgpack checkpoints.
std::string_view NumpyName(DType dtype) noexcept;
std::optional<DType> DTypeFromNumpy(std::string_view name) noexcept;

constexpr bool IsFloat(DType dtype) noexcept {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 ||
         dtype == DType::kBF16;
}

}  // namespace lwm::io
