#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include "lwm/io/gguf_blocks.h"
#include "lwm/model/weights.h"

namespace lwm::checkpoint {

// The stored type of one weight when matrices get `type`, as in GGUF files: norms are f32, and
// matrices whose rows are no whole blocks of a block type are f16.
io::GgufType StoredType(const model::TensorSpec& spec, io::GgufType type);

// Calls `write` with the weight's bytes in that type, in pieces: of a float type (rounded to
// nearest even), Q8_0 or Q4_0. Contiguous or not, any float dtype. Throws Error(kInvalidArgument)
// naming the weight when it does not fit f16.
void WriteStoredForm(const at::Tensor& weight, io::GgufType type, const std::string& name,
                     const std::function<void(std::span<const std::byte>)>& write);

// The float type's name in GGUF; f32, bf16 or f16.
io::GgufType GgufTypeOf(at::ScalarType dtype);

}  // namespace lwm::checkpoint
