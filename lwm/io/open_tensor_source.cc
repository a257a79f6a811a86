#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/gguf_source.h"
#include "lwm/io/llama2c_source.h"
#include "lwm/io/msgpack_stream.h"
#include "lwm/io/numpy_pickle_source.h"
#include "lwm/io/safetensors_source.h"
#include "lwm/io/tensor_source.h"
#include "lwm/io/torch_source.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

std::vector<unsigned char> ReadStart(const fs::path& path) {
  const std::string start = ReadFileStart(path, 64);
  return {start.begin(), start.end()};
}

bool StartsWith(const std::vector<unsigned char>& start, std::string_view magic) {
  return start.size() >= magic.size() && std::memcmp(start.data(), magic.data(), magic.size()) == 0;
}

// A msgpack map of weights, or the array of two with an array as its key that begins a record.
bool LooksLikeMsgpack(const std::vector<unsigned char>& start) {
  if (start.empty()) return false;
  const bool map = (start[0] >= 0x80 && start[0] <= 0x8f) || start[0] == 0xde || start[0] == 0xdf;
  return map || (start[0] == 0x92 && (start.size() == 1 || (start[1] & 0xf0) == 0x90));
}

// A header's length, whose upper bytes are 0, and the brace that begins it. Its lower bytes may be
// those of a pickle.
bool LooksLikeSafetensors(const std::vector<unsigned char>& start) {
  return start.size() > 8 && start[8] == '{' && start[5] == 0 && start[6] == 0 && start[7] == 0;
}

std::unique_ptr<TensorSource> OpenFile(const fs::path& path) {
  const auto start = ReadStart(path);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, !start.empty(), path.string(), ": the file is empty");
  if (StartsWith(start, "GGUF")) return std::make_unique<GgufSource>(path);
  if (StartsWith(start, "PK\x03\x04")) return std::make_unique<TorchSource>(path);
  if (LooksLikeSafetensors(start)) return std::make_unique<SafetensorsSource>(path);
  // A pickle of the first PyTorch format starts with a magic number of ten bytes.
  LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                 !StartsWith(start, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"),
                 path.string(),
                 ": saved by PyTorch before 1.6; load it there and torch.save it again");
  if (start.size() > 1 && start[0] == 0x80 && start[1] >= 2 && start[1] <= 5)
    return std::make_unique<NumpyPickleSource>(path);
  if (start.size() > 8 && start[8] == '{') return std::make_unique<SafetensorsSource>(path);
  if (IsLlama2c(path)) return std::make_unique<Llama2cSource>(path);
  if (LooksLikeMsgpack(start)) return std::make_unique<MsgpackSource>(path);
  if (path.extension() == ".safetensors") return std::make_unique<SafetensorsSource>(path);
  throw Error(ErrorCode::kCorruptData,
              Cat(path.string(),
                  ": not safetensors, a PyTorch zip, GGUF, llama2.c, a JAX msgpack "
                  "stream or a pickle of arrays; the file may be truncated"));
}

std::unique_ptr<TensorSource> OpenIndex(const fs::path& path) {
  if (path.string().ends_with(".safetensors.index.json"))
    return std::make_unique<SafetensorsSource>(path);
  if (path.string().ends_with(".bin.index.json")) return std::make_unique<TorchSource>(path);
  return nullptr;
}

bool MayHoldWeights(const fs::path& path) {
  static const std::set<std::string> kExtensions = {".safetensors", ".bin", ".gguf", ".msgpack"};
  const std::string name = path.filename().string();
  return kExtensions.contains(path.extension().string()) || name.starts_with("streaming_params") ||
         name.starts_with("streaming_train_state") || name == "params" || name == "vqgan";
}

std::unique_ptr<TensorSource> OpenFolder(const fs::path& folder) {
  for (const char* name :
       {"model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json",
        "pytorch_model.bin", "diffusion_pytorch_model.safetensors"})
    if (fs::exists(folder / name)) return OpenTensorSource(folder / name);
  std::vector<fs::path> candidates;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && MayHoldWeights(entry.path())) candidates.push_back(entry.path());
  LWM_REQUIRE_AS(ErrorCode::kNotFound, !candidates.empty(), folder.string(),
                 " holds no weights: model.safetensors, or model.safetensors.index.json and its "
                 "shards, is wanted");
  std::sort(candidates.begin(), candidates.end());
  LWM_REQUIRE_AS(ErrorCode::kNotFound, candidates.size() == 1, folder.string(),
                 " holds several weight files (", candidates[0].filename().string(), ", ",
                 candidates.back().filename().string(),
                 " ...) and no index.json; name the one to read");
  return OpenFile(candidates[0]);
}

}  // namespace

std::unique_ptr<TensorSource> OpenTensorSource(const fs::path& path) {
  LWM_REQUIRE_AS(ErrorCode::kNotFound, fs::exists(path), "cannot read ", path.string(),
                 ": no such file or folder");
  if (fs::is_directory(path)) return OpenFolder(path);
  if (auto source = OpenIndex(path)) return source;
  return OpenFile(path);
}

}  // namespace lwm::io
