// A JAX checkpoint of any bytes is read whole or refused with an Error.
#include "lwm/base/file.h"
#include "lwm/io/msgpack_stream.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return lwm::fuzz::ReadOrRefuse(data, size, [](std::span<const std::byte> file) {
    for (const auto& tensor : lwm::io::ParseMsgpackCheckpoint(file, "input"))
      for (const auto chunk : tensor.chunks) lwm::HashHex(chunk);
  });
}
