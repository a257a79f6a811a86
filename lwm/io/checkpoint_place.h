#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace lwm::io {

// The checkpoint that `path` names indirectly:
//
//   a part of a split GGUF                                  its first part
//   a folder whose only weights are one GGUF, or one split  that file, the first part
//   a folder of the Hugging Face cache, models--ORG--NAME   the snapshot that refs/main names, else
//     or the snapshots in it                                the only one
//   a run folder of lwm train                               its model
//
// `path` itself otherwise, also when nothing is there. Steps are combined. Throws Error(kNotFound)
// that names what to choose from: several snapshots or GGUF files, the snapshot that was not
// fetched, a run without a checkpoint. Cost: listing a folder.
std::filesystem::path FindCheckpoint(const std::filesystem::path& path);

// "a.gguf, b.gguf and 3 more".
std::string NameSome(const std::vector<std::filesystem::path>& files);

}  // namespace lwm::io
