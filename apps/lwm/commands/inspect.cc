// lwm inspect: what a checkpoint holds.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "command.h"
#include "commands.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/base/text.h"
#include "lwm/checkpoint/import.h"
#include "lwm/checkpoint/import_config.h"
#include "lwm/config/model_config.h"
#include "lwm/data/tokenizer.h"
#include "lwm/io/checkpoint_place.h"
#include "lwm/io/gguf_source.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/io/tensor_source.h"

namespace lwm::app {
namespace {
namespace fs = std::filesystem;

constexpr size_t kPieceBytes = size_t{16} << 20;  // whole blocks of every format

struct InspectFlags {
  std::string path;
  bool json = false;
};

std::string Checksum(const io::TensorSource& source, size_t index, std::vector<std::byte>& piece) {
  StreamHash hash;
  const uint64_t bytes = io::TensorBytes(source.infos()[index]);
  for (uint64_t begin = 0; begin < bytes; begin += piece.size()) {
    piece.resize(std::min<uint64_t>(kPieceBytes, bytes - begin));
    source.ReadRange(index, begin, piece);
    hash.Add(piece);
  }
  piece.resize(kPieceBytes);
  return hash.Hex();
}

Json DescribeTensors(const io::TensorSource& source) {
  Json tensors = Json::array();
  std::vector<std::byte> piece(kPieceBytes);
  for (size_t i = 0; i < source.infos().size(); ++i) {
    const io::TensorInfo& info = source.infos()[i];
    tensors.push_back({{"name", info.name},
                       {"dtype", source.Encoding(i)},
                       {"shape", info.shape},
                       {"bytes", source.StoredBytes(i)},
                       {"xxh3", Checksum(source, i, piece)}});
  }
  return tensors;
}

// The config if there is one: in the folder, or stated by the format itself.
Json DescribeConfig(const fs::path& path, const io::TensorSource& source) {
  const fs::path file = (fs::is_directory(path) ? path : path.parent_path()) / "config.json";
  if (fs::exists(file)) return ReadJsonFile(file);
  if (const auto config = checkpoint::ConfigOfSource(source))
    return config::ModelConfigToJson(*config, "float32");
  return {};
}

Json DescribeTokenizer(const fs::path& path, const io::TensorSource& source) {
  if (const auto* gguf = dynamic_cast<const io::GgufSource*>(&source)) {
    const auto kind = gguf->metadata().Text("tokenizer.ggml.model");
    if (!kind) return {};
    return {{"kind", *kind}, {"pieces", gguf->metadata().Texts("tokenizer.ggml.tokens").size()}};
  }
  const fs::path folder = fs::is_directory(path) ? path : path.parent_path();
  for (const char* name : {"tokenizer.model", "tokenizer.json"}) {
    if (!fs::exists(folder / name)) continue;
    try {
      return {{"kind", name}, {"pieces", data::OpenTokenizer(folder / name)->vocab_size()}};
    } catch (const Error& error) {  // the weights are shown nonetheless
      return {{"kind", name}, {"problem", error.what()}};
    }
  }
  return {};
}

Json Describe(const fs::path& path) {
  const auto source = io::OpenTensorSource(path);
  uint64_t elements = 0, bytes = 0;
  for (size_t i = 0; i < source->infos().size(); ++i) {
    const io::TensorInfo& info = source->infos()[i];
    elements += io::TensorBytes(info) / io::DTypeSize(info.dtype);
    bytes += source->StoredBytes(i);
  }
  return {{"path", path.string()},
          {"format", source->format()},
          {"numbers", elements},
          {"bytes", bytes},
          {"config", DescribeConfig(path, *source)},
          {"tokenizer", DescribeTokenizer(path, *source)},
          {"tensors", DescribeTensors(*source)}};
}

// Names out of a file may hold any bytes.
std::string DumpAnyBytes(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string ConfigLine(const Json& config) {
  std::string line;
  for (const char* key :
       {"model_type", "vocab_size", "vision_vocab_size", "hidden_size", "intermediate_size",
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
        "max_position_embeddings", "rope_theta", "rms_norm_eps", "tie_word_embeddings"})
    if (config.contains(key)) line += Cat(line.empty() ? "" : ", ", key, " ", config[key].dump());
  return line;
}

void PrintTable(const Json& result) {
  size_t width = 4;
  for (const Json& tensor : result["tensors"])
    width = std::max(width, tensor["name"].get_ref<const std::string&>().size());
  const std::string size = FormatBytes(static_cast<double>(result["bytes"].get<uint64_t>()));
  const std::string tensors = CountOf(static_cast<int64_t>(result["tensors"].size()), "tensor");
  std::printf("%s: %s, %s, %s\n", result["path"].get<std::string>().c_str(),
              result["format"].get<std::string>().c_str(), tensors.c_str(), size.c_str());
  if (!result["config"].is_null())
    std::printf("config: %s\n", ConfigLine(result["config"]).c_str());
  if (!result["tokenizer"].is_null())
    std::printf("tokenizer: %s\n", DumpAnyBytes(result["tokenizer"]).c_str());
  for (const Json& tensor : result["tensors"])
    std::printf("%-*s %-5s %-20s %s\n", static_cast<int>(width),
                WithoutControls(tensor["name"].get<std::string>()).c_str(),
                tensor["dtype"].get<std::string>().c_str(), tensor["shape"].dump().c_str(),
                tensor["xxh3"].get<std::string>().c_str());
}

}  // namespace

void AddInspect(CLI::App& command) {
  auto flags = std::make_shared<InspectFlags>();
  command.add_option("path", flags->path, "checkpoint: a file or a folder, of any known format")
      ->required();
  command.add_flag("--json", flags->json, "print one JSON object");
  AddExamples(command, "  lwm inspect model\n  lwm inspect model.gguf --json");
  command.callback([flags] {
    const Json result = Describe(io::FindCheckpoint(flags->path));
    if (flags->json) {
      std::printf("%s\n", DumpAnyBytes(result).c_str());
    } else {
      PrintTable(result);
    }
  });
}

}  // namespace lwm::app
