#pragma once

#include <span>
#include <vector>

#include "lwm/io/mapped_source.h"

namespace lwm::testing_support {

// Reads every number of every tensor.
inline void ReadStored(const std::vector<io::StoredTensor>& tensors) {
  for (const io::StoredTensor& tensor : tensors) {
    std::vector<std::byte> data(*io::TensorBytes(tensor.data.dtype, tensor.data.shape));
    if (tensor.blocks) {
      io::Dequantize(tensor.blocks->type, tensor.data.storage,
                     {reinterpret_cast<float*>(data.data()), data.size() / sizeof(float)});
    } else {
      io::ReadStrided(tensor.data, 0, data);
    }
  }
}

}  // namespace lwm::testing_support
