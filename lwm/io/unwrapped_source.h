#pragma once

#include <memory>
#include <string>

#include "lwm/io/tensor_source.h"

namespace lwm::io {

// A tensor's name without the parts that wrappers of PyTorch modules add to it: torch.compile's
// `_orig_mod`, DistributedDataParallel's `module`, FSDP's and others, at the start or inside:
// "module.model.layers.0._orig_mod.mlp.up_proj.weight".
std::string WithoutWrappers(const std::string& name);

// `source` with its tensors under the names of the model itself: without wrappers, and without a
// prefix that all tensors share before "model.embed_tokens.weight" or "quantize.embedding.weight"
// ("base_model.model.", "state_dict."; tensors of an optimizer beside it are left out). The bare
// inner model of transformers ("embed_tokens.weight") gets its "model." back. What was changed is
// said in a note (base/note.h). `source` itself, untouched, when its names need nothing.
// Throws Error(kCorruptData) when two tensors then have the same name.
std::unique_ptr<TensorSource> Unwrapped(std::unique_ptr<TensorSource> source);

}  // namespace lwm::io
