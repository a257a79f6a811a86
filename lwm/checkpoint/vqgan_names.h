#pragma once

#include <string>

namespace lwm::checkpoint {

// "encoder/DownsamplingBlock_0/ResnetBlock_1/Conv_0/kernel" for
// "encoder.down_blocks.0.resnets.1.conv1.weight": the path in the published pickle.
std::string FlaxName(const std::string& diffusers_name);

}  // namespace lwm::checkpoint
