// A pickle of arrays of any bytes is read whole or refused with an Error; nothing is executed.
#include "lwm/io/numpy_pickle_source.h"
#include "lwm/testing/read_stored.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return lwm::fuzz::ReadOrRefuse(data, size, [](std::span<const std::byte> file) {
    const auto tree = lwm::io::ParseNumpyPickle(file, "input");
    lwm::testing_support::ReadStored(tree.tensors);
  });
}
