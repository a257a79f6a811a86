#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <vector>

#include "lwm/io/tensor_info.h"

namespace lwm::io {

// Writes a Python pickle (protocol 4) of nested dicts with numpy arrays as leaves, the form of the
// published VQGAN: names are split at '/', keys stand in sorted order. pickle.load with numpy 1 or
// 2 reads it. `read` gives the C-order bytes of one array and is called once per array; memory is
// one array. The file appears whole or not at all.
// Throws Error(kInvalidArgument) on bf16, which numpy does not know, on an empty or repeated name,
// and on a name that is also the prefix of another.
void WriteNumpyPickle(const std::filesystem::path& path, std::vector<TensorInfo> infos,
                      const std::function<std::vector<std::byte>(const TensorInfo&)>& read);

}  // namespace lwm::io
