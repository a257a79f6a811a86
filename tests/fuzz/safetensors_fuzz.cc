// A safetensors file of any bytes is read whole or refused with an Error.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/safetensors.h"

namespace {

void Read(std::span<const std::byte> file) {
  const auto layout = lwm::io::ParseSafetensors(file, "input");
  for (size_t i = 0; i < layout.infos.size(); ++i)
    lwm::HashHex(file.subspan(layout.offsets[i], lwm::io::TensorBytes(layout.infos[i])));
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
