#pragma once

#include <filesystem>
#include <string>

#include "lwm/base/json.h"
#include "lwm/io/tensor_source.h"

namespace lwm::model {

// Checkpoints of kinds that this program does not read are refused by their name, before a tensor
// of theirs is called missing. Each function throws Error(kInvalidArgument) that says what the
// checkpoint is and what to do, or does nothing.

// Of what stands beside the weights at `place`, a folder or a file: an adapter without its base
// model, a config.json of a VQGAN or of quantised weights (quantization_config), or the file that
// a quantiser leaves (quantize_config.json).
void RefuseForeignFolder(const std::filesystem::path& place);

// `quantization_config` and its like in a config.json: bitsandbytes, GPTQ, AWQ, FP8 and so on.
void RefuseQuantizedConfig(const Json& config, const std::string& where);

// By names and types of tensors: adapters (LoRA and others), quantised weights, a VQGAN, other
// programs' names for a LLaMA.
void RefuseForeignTensors(const io::TensorSource& source);

}  // namespace lwm::model
