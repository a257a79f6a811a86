// A GGUF file of any bytes is read whole, metadata and weights, or refused with an Error.
#include <string>
#include <vector>

#include "lwm/base/file.h"
#include "lwm/io/gguf_source.h"
#include "tests/fuzz/target.h"

namespace {

void ReadMetadata(const lwm::io::GgufMetadata& metadata, const std::string& key) {
  try {
    metadata.Integer(key);
    metadata.Number(key);
    metadata.Flag(key);
    metadata.Text(key);
  } catch (const lwm::Error&) {  // of another type
  }
  try {
    metadata.Numbers(key);
    metadata.Texts(key);
  } catch (const lwm::Error&) {
  }
}

void Read(std::span<const std::byte> file) {
  const auto gguf = lwm::io::ParseGguf(file, "input");
  for (const auto& [key, value] : gguf.metadata.values) ReadMetadata(gguf.metadata, key);
  for (const auto& tensor : gguf.tensors) {
    const auto type = *lwm::io::FindGgufType(static_cast<uint32_t>(tensor.type));
    std::vector<float> weights(type.block > 1 ? tensor.bytes.size() / type.bytes * type.block : 0);
    lwm::io::Dequantize(tensor.type, weights.empty() ? std::span<const std::byte>() : tensor.bytes,
                        weights);
    lwm::HashHex(tensor.bytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return lwm::fuzz::ReadOrRefuse(data, size, Read);
}
