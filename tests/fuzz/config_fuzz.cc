// A model config of any bytes is read or refused with an Error; what is accepted has usable
// numbers.
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "lwm/base/error.h"
#include "lwm/config/model_config.h"
#include "lwm/config/rope_frequencies.h"
#include "tests/fuzz/target.h"

namespace {

// Its own reader must accept what the writer wrote.
void WriteAndReadAgain(const lwm::config::ModelConfig& config) {
  try {
    const lwm::Json written = lwm::config::ModelConfigToJson(config, "float32");
    if (lwm::config::ParseModelConfig(written, "written").ParameterCount() !=
        config.ParameterCount())
      std::abort();
  } catch (const lwm::Error&) {
    std::abort();
  }
}

void CheckAccepted(const lwm::config::ModelConfig& config) {
  if (config.ParameterCount() <= 0) std::abort();
  for (const double frequency :
       lwm::config::ComputeRopeFrequencies(config, 1 << 20).inverse_frequency_R)
    if (!std::isfinite(frequency) || frequency < 0) std::abort();
  WriteAndReadAgain(config);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return lwm::fuzz::ReadOrRefuse(data, size, [](std::span<const std::byte> bytes) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto config = lwm::config::ParseModelConfig(lwm::ParseJson(text, "input"), "input");
    config.Validate();
    CheckAccepted(config);
  });
}
