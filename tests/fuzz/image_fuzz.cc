// Any bytes are an image or refused.
#include <cstddef>
#include <cstdint>

#include "lwm/io/image_file.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return lwm::fuzz::ReadOrRefuse(data, size, [](std::span<const std::byte> bytes) {
    const lwm::io::RgbImage image = lwm::io::DecodeImage(bytes, "input");
    lwm::fuzz::Check(image.width > 0 && image.height > 0);
    lwm::fuzz::Check(image.rgb_HWC.size() == static_cast<size_t>(3 * image.width * image.height));
  });
}
