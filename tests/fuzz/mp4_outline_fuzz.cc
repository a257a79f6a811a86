// The boxes of any bytes are read, or taken as damaged; nothing is thrown.
#include <cstddef>
#include <cstdint>
#include <span>

#include "lwm/io/mp4_outline.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const lwm::io::Mp4Outline outline = lwm::io::ReadMp4Outline(std::as_bytes(std::span(data, size)));
  const int turn = outline.turn_degrees;
  lwm::fuzz::Check(turn == 0 || turn == 90 || turn == 180 || turn == 270);
  return 0;
}
