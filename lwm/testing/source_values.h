#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include "lwm/io/gguf_blocks.h"
#include "lwm/io/tensor_source.h"

namespace lwm::testing_support {

// A tensor's numbers as f64, whatever its dtype.
inline std::vector<double> ValuesOf(const io::TensorSource& source, const std::string& name) {
  const io::TensorInfo& info = source.info(name);
  std::vector<std::byte> bytes(io::TensorBytes(info));
  source.Read(name, bytes);
  const size_t size = io::DTypeSize(info.dtype);
  std::vector<double> values;
  const auto load = [&]<class T>(size_t i, T value) {
    std::memcpy(&value, bytes.data() + i * size, sizeof(T));
    return value;
  };
  for (size_t i = 0; i < bytes.size() / size; ++i) {
    switch (info.dtype) {
      case io::DType::kF64:
        values.push_back(load(i, double{}));
        break;
      case io::DType::kF32:
        values.push_back(load(i, float{}));
        break;
      case io::DType::kF16:
        values.push_back(io::HalfToFloat(load(i, uint16_t{})));
        break;
      case io::DType::kBF16:
        values.push_back(std::bit_cast<float>(uint32_t{load(i, uint16_t{})} << 16));
        break;
      case io::DType::kI64:
        values.push_back(static_cast<double>(load(i, int64_t{})));
        break;
      case io::DType::kI32:
        values.push_back(load(i, int32_t{}));
        break;
      case io::DType::kI16:
        values.push_back(load(i, int16_t{}));
        break;
      case io::DType::kI8:
        values.push_back(load(i, int8_t{}));
        break;
      case io::DType::kU64:
        values.push_back(static_cast<double>(load(i, uint64_t{})));
        break;
      case io::DType::kU32:
        values.push_back(load(i, uint32_t{}));
        break;
      case io::DType::kU16:
        values.push_back(load(i, uint16_t{}));
        break;
      case io::DType::kU8:
      case io::DType::kBool:
        values.push_back(load(i, uint8_t{}));
        break;
    }
  }
  return values;
}

// Both sources hold the same tensor: shape and every number.
inline void ExpectSameTensor(const io::TensorSource& source, const io::TensorSource& expected,
                             const std::string& name) {
  ASSERT_TRUE(source.contains(name)) << name;
  EXPECT_EQ(source.info(name).shape, expected.info(name).shape) << name;
  EXPECT_EQ(ValuesOf(source, name), ValuesOf(expected, name)) << name;
}

// Reads every byte of every tensor, in two pieces.
inline void ReadEverything(const io::TensorSource& source) {
  for (size_t i = 0; i < source.infos().size(); ++i) {
    const io::TensorInfo& info = source.infos()[i];
    std::vector<std::byte> bytes(io::TensorBytes(info));
    source.ReadRange(i, 0, bytes);
  }
}

}  // namespace lwm::testing_support
