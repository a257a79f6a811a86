#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lwm/config/dtype.h"
#include "lwm/io/tensor_source.h"

namespace lwm::checkpoint {

// LibTorch's name of a dtype that a recipe or flag names.
at::ScalarType ToScalarType(config::Dtype dtype);

// LibTorch's name of a stored element type and back. The reverse throws Error(kInvalidArgument) for
// types that files do not hold (complex, quantised).
at::ScalarType ToScalarType(io::DType dtype);
io::DType ToDType(at::ScalarType dtype);

// A whole tensor, or rows [begin, begin + rows) of its first dimension, in its stored dtype.
at::Tensor ReadTensor(const io::TensorSource& source, const std::string& name);
at::Tensor ReadTensorRows(const io::TensorSource& source, const std::string& name, int64_t begin,
                          int64_t rows);

// The tensor without a copy where the source has a View of it, else ReadTensor. Not to be written
// to. Keeps the source alive, and gives the file's pages back when the last reference is gone.
at::Tensor ViewTensor(const std::shared_ptr<const io::TensorSource>& source,
                      const std::string& name);

// The tensor in `dtype`, rounded to nearest even, contiguous; itself if it is that already.
at::Tensor InDtype(const at::Tensor& tensor, at::ScalarType dtype);

// Calls `use` with rows [0, n), [n, ...) of a contiguous tensor in turn, views that stay in the
// cache while they are converted and written. Any other tensor is one piece.
void ForEachPiece(const at::Tensor& tensor, const std::function<void(const at::Tensor&)>& use);

// The same of the transpose in `dtype` of a contiguous matrix [rows, cols], whose elements are 2 or
// 4 bytes: rows [0, n), [n, ...) of [cols, rows], contiguous, valid during the call. One thread.
void ForEachTransposedPiece(const at::Tensor& matrix, at::ScalarType dtype,
                            const std::function<void(const at::Tensor&)>& use);

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// All tensors of a safetensors file, copied. Throws as io::SafetensorsFile does.
std::map<std::string, at::Tensor> LoadTensors(const std::filesystem::path& path);

// Writes a safetensors file, atomically. Tensors may have any strides and live on any device.
void SaveTensors(const std::filesystem::path& path, const NamedTensors& tensors);

// The bytes of a contiguous CPU tensor, valid as long as the tensor.
std::span<std::byte> TensorBytes(const at::Tensor& tensor);

}  // namespace lwm::checkpoint
