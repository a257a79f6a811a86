// The frames of any bytes are read to the end and converted, or refused.
#include <cstddef>
#include <cstdint>

#include "lwm/io/video_reader.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return lwm::fuzz::ReadOrRefuse(data, size, [](std::span<const std::byte> bytes) {
    lwm::io::VideoReader reader(bytes, "input");
    double before = 0;
    for (int frames = 0; frames < 100 && reader.Grab(); ++frames) {
      lwm::fuzz::Check(reader.seconds() >= before);
      before = reader.seconds();
      const lwm::io::RgbImage image = reader.Retrieve();
      lwm::fuzz::Check(image.rgb_HWC.size() == static_cast<size_t>(3 * image.width * image.height));
    }
  });
}
