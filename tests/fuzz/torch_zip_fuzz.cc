// A PyTorch archive of any bytes is read whole or refused with an Error.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/torch_source.h"

namespace {

void Read(std::span<const std::byte> file) {
  for (const auto& tensor : lwm::io::ParseTorchFile(file, "input")) {
    std::vector<std::byte> data(*lwm::io::TensorBytes(tensor.data.dtype, tensor.data.shape));
    lwm::io::ReadStrided(tensor.data, 0, data);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    Read(std::as_bytes(std::span(data, size)));
  } catch (const lwm::Error&) {
    return 0;
  }
  return 0;
}
