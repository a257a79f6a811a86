// A JAX checkpoint of any bytes is read whole or refused with an Error.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/msgpack_stream.h"

namespace {

void Read(std::span<const std::byte> file) {
  for (const auto& tensor : lwm::io::ParseMsgpackCheckpoint(file, "input"))
    for (const auto chunk : tensor.chunks) lwm::HashHex(chunk);
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
