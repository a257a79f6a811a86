#pragma once

#include <filesystem>
#include <memory>

#include "lwm/io/tensor_source.h"

namespace lwm::io {

// Opens a checkpoint of any known format, recognised by content: a file, or a folder that holds
// safetensors or pytorch_model files (one, or shards with an index.json), or one file of another
// format, or what FindCheckpoint (io/checkpoint_place.h) follows. Throws Error(kNotFound) when
// nothing is there or files of it are missing, Error(kCorruptData) when it is damaged or of no
// known format.
std::unique_ptr<TensorSource> OpenTensorSource(const std::filesystem::path& path);

}  // namespace lwm::io
