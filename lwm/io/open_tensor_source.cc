#include "lwm/io/open_tensor_source.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <regex>
#include <set>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/checkpoint_place.h"
#include "lwm/io/gguf_source.h"
#include "lwm/io/llama2c_source.h"
#include "lwm/io/msgpack_stream.h"
#include "lwm/io/numpy_pickle_source.h"
#include "lwm/io/safetensors_source.h"
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

// Beginnings of files that people take for weights.
struct ForeignStart {
  std::string_view magic, explanation;
};
constexpr ForeignStart kForeignStarts[] = {
    {"<", "a web page, not weights; the download went wrong, fetch the file again"},
    {"{", "JSON text, not weights; give the folder, or the file with the weights"},
    {"\x1f\x8b", "a gzip archive; unpack it first"},
    {"\x89HDF", "an HDF5 file of Keras or TensorFlow; take the model as safetensors"},
    {"tjgg", "a GGML file older than GGUF; take the model as GGUF"},
    {"lmgg", "a GGML file older than GGUF; take the model as GGUF"},
    {"fmgg", "a GGML file older than GGUF; take the model as GGUF"},
    // A pickle of the first PyTorch format starts with a magic number of ten bytes.
    {"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
     "saved by PyTorch before 1.6; load it there and torch.save it again"},
};

std::unique_ptr<TensorSource> OpenFile(const fs::path& path) {
  const auto start = ReadStart(path);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, !start.empty(), path.string(), ": the file is empty");
  for (const ForeignStart& foreign : kForeignStarts)
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, !StartsWith(start, foreign.magic), path.string(), ": ",
                   foreign.explanation);
  if (StartsWith(start, "GGUF")) return std::make_unique<GgufSource>(path);
  if (StartsWith(start, "PK\x03\x04")) return std::make_unique<TorchSource>(path);
  // Strict signs first: a safetensors length may begin like a pickle, and any bytes may look like
  // msgpack.
  if (LooksLikeSafetensors(start)) return std::make_unique<SafetensorsSource>(path);
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

// "model-00002-of-00003.safetensors", as transformers names shards.
bool IsShardName(const fs::path& path) {
  static const std::regex kShard(R"(.*-\d{5}-of-\d{5})");
  return path.extension() != ".gguf" && std::regex_match(path.stem().string(), kShard);
}

[[noreturn]] void ThrowNoWeights(const fs::path& folder) {
  std::vector<fs::path> unfinished, below;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    const bool leads_nowhere = entry.is_symlink() && !fs::exists(entry.path());
    if (leads_nowhere || extension == ".incomplete" || extension == ".part" ||
        extension == ".crdownload")
      unfinished.push_back(entry.path());
    if (fs::is_directory(entry) &&
        (fs::exists(entry.path() / "config.json") || fs::is_directory(entry.path() / "snapshots")))
      below.push_back(entry.path());
  }
  std::sort(unfinished.begin(), unfinished.end());
  std::sort(below.begin(), below.end());
  std::string text = folder.string() + " holds no weights: ";
  if (!unfinished.empty())
    text += NameSome(unfinished) + " is not there or not whole; the download is incomplete";
  else if (!below.empty())
    text += "name one of the folders in it: " + NameSome(below);
  else
    text += "model.safetensors, or model.safetensors.index.json and its shards, is wanted";
  throw Error(ErrorCode::kNotFound, text);
}

std::unique_ptr<TensorSource> OpenFolder(const fs::path& folder) {
  for (const char* name :
       {"model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json",
        "pytorch_model.bin", "diffusion_pytorch_model.safetensors"})
    if (fs::exists(folder / name)) return OpenTensorSource(folder / name);
  std::vector<fs::path> candidates;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && MayHoldWeights(entry.path())) candidates.push_back(entry.path());
  if (candidates.empty()) ThrowNoWeights(folder);
  std::sort(candidates.begin(), candidates.end());
  LWM_REQUIRE_AS(ErrorCode::kNotFound, !IsShardName(candidates[0]), folder.string(), " holds ",
                 NameSome(candidates),
                 ", of a model in several files, but not the index.json that ",
                 "lists them; the download is incomplete");
  LWM_REQUIRE_AS(ErrorCode::kNotFound, candidates.size() == 1, folder.string(),
                 " holds several weight files (", NameSome(candidates),
                 ") and no index.json; name the one to read");
  return OpenFile(candidates[0]);
}

// "org/name" as on a model hub: two parts, of which not even the first is a folder here.
bool IsHubName(const fs::path& path) {
  static const std::regex kName(R"([\w-][\w.-]*/[\w.-]+)");
  return std::regex_match(path.string(), kName) && !MayHoldWeights(path) &&
         !fs::exists(path.parent_path());
}
constexpr char kFetchFirst[] =
    "; if this is a name on a model hub, download it first and give its folder";

}  // namespace

std::unique_ptr<TensorSource> OpenTensorSource(const fs::path& named) {
  LWM_REQUIRE_AS(ErrorCode::kNotFound, fs::exists(named), "cannot read ", named.string(),
                 ": no such file or folder", IsHubName(named) ? kFetchFirst : "");
  const fs::path path = FindCheckpoint(named);
  if (fs::is_directory(path)) return OpenFolder(path);
  if (auto source = OpenIndex(path)) return source;
  return OpenFile(path);
}

}  // namespace lwm::io
