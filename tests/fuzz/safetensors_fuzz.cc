// A safetensors file of any bytes, quantised or not, is read whole or refused with an Error.
#include "lwm/io/safetensors_source.h"
#include "lwm/testing/read_stored.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return lwm::fuzz::ReadOrRefuse(data, size, [](std::span<const std::byte> file) {
    lwm::testing_support::ReadStored(lwm::io::ParseSafetensorsTensors(file, "input"));
  });
}
