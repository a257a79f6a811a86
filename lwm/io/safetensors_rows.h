#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lwm/io/tensor_info.h"

namespace lwm::io {

// A safetensors file of tensors that grow row by row, their first size known only at the end. Each
// tensor gathers in a file beside `path`; Finish joins them. Without it nothing is left behind.
// Memory: constant. Cost: every byte is written twice.
class SafetensorsRows {
 public:
  // `rows`: names, dtypes and the shape of one row (the tensor's without its first size).
  // File errors as OutputFile throws them.
  SafetensorsRows(const std::filesystem::path& path, std::vector<TensorInfo> rows);
  ~SafetensorsRows();
  SafetensorsRows(const SafetensorsRows&) = delete;
  SafetensorsRows& operator=(const SafetensorsRows&) = delete;

  // Appends whole rows to tensor `index`.
  void Append(size_t index, std::span<const std::byte> rows);
  void Finish();

 private:
  struct Part;
  std::filesystem::path path_;
  std::vector<std::unique_ptr<Part>> parts_;
};

}  // namespace lwm::io
