#pragma once

#include <filesystem>
#include <string>

#include "lwm/base/json.h"
#include "lwm/io/tensor_source.h"

namespace lwm::checkpoint {

// Refuse checkpoints of unsupported kinds by name, before one of their tensors is reported missing.
// Each function throws Error(kInvalidArgument) that names the kind and the remedy, or does nothing.

// By files beside the weights at `place`, a folder or a file: an adapter without its base
// model, a config.json of a VQGAN or of quantised weights (quantization_config), or the file that
// a quantiser leaves (quantize_config.json).
void RefuseForeignFolder(const std::filesystem::path& place);

// `quantization_config` and its like in a config.json: bitsandbytes, GPTQ, AWQ, FP8 and so on.
void RefuseQuantizedConfig(const Json& config, const std::string& where);

// By names and types of tensors: adapters (LoRA and others), quantised weights, a VQGAN, other
// programs' names for a LLaMA.
void RefuseForeignTensors(const io::TensorSource& source);

}  // namespace lwm::checkpoint
