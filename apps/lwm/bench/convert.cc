// `lwm bench convert`: a checkpoint with the matrices of a 7B model goes into another format, as
// fast as this machine copies the file?
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/process.h"
#include "lwm/checkpoint/export.h"
#include "lwm/checkpoint/import.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/stored_form.h"
#include "lwm/checkpoint/tensor_file.h"

namespace lwm::app {
namespace {
namespace fs = std::filesystem;

struct ConvertBenchFlags {
  double gigabytes = 2;
  std::string format = "hf", weights = "f16";
  std::string folder = fs::temp_directory_path().string();
};

// A folder that is gone when the bench ends.
class ScratchFolder {
 public:
  explicit ScratchFolder(const fs::path& parent)
      : path_(parent / Cat("lwm-bench-convert-", getpid())) {
    fs::create_directories(path_);
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

uint64_t Bf16Bytes(const model::TensorSpec& spec) {
  uint64_t bytes = 2;
  for (const int64_t size : spec.shape) bytes *= static_cast<uint64_t>(size);
  return bytes;
}

// The published sizes (those of LLaMA 7B), with as many of the 32 layers as `gigabytes` hold.
config::ModelConfig SevenBillionShaped(double gigabytes) {
  config::ModelConfig config;
  config.vocab_size = 32000;
  config.hidden_size = 4096;
  config.intermediate_size = 11008;
  config.num_attention_heads = config.num_key_value_heads = 32;
  config.head_dim = 128;
  config.max_position_embeddings = 1 << 20;
  config.num_hidden_layers = 1;
  const auto bytes = [&] { return 2 * static_cast<double>(config.ParameterCount()); };
  const double one = bytes();
  config.num_hidden_layers = 2;
  const double layer = bytes() - one;
  config.num_hidden_layers =
      std::clamp<int64_t>(1 + static_cast<int64_t>((gigabytes * 1e9 - one) / layer), 1, 32);
  return config;
}

// A model directory whose one safetensors file, bf16, is all hole after the header: it reads as
// zeros and takes no disk. Returns the file's size.
uint64_t WriteSparseModel(const config::ModelConfig& config, const fs::path& folder) {
  fs::create_directories(folder);
  WriteFileAtomically(folder / "config.json", config::ModelConfigToJson(config, "bfloat16").dump());
  Json header = Json::object();
  uint64_t offset = 0;
  for (const model::TensorSpec& spec : checkpoint::AllTensorSpecs(config)) {
    const uint64_t end = offset + Bf16Bytes(spec);
    header[spec.name] = {{"dtype", "BF16"}, {"shape", spec.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();  // little-endian on every machine this program runs on
  std::ofstream out(folder / "model.safetensors", std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), sizeof(length));
  out << text;
  out.close();
  const uint64_t size = sizeof(length) + length + offset;
  fs::resize_file(folder / "model.safetensors", size);
  return size;
}

// Copies like cp, byte for byte with holes written out; ends with fsync, as every conversion does.
void Copy(const fs::path& from, const fs::path& to) {
  const int in = open(from.c_str(), O_RDONLY | O_CLOEXEC);
  const int out = open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  std::vector<char> buffer(1 << 18);
  bool good = in >= 0 && out >= 0;
  ssize_t count = 0;
  while (good && (count = read(in, buffer.data(), buffer.size())) > 0)
    good = write(out, buffer.data(), static_cast<size_t>(count)) == count;
  good = good && count == 0 && fsync(out) == 0;
  close(in);
  close(out);
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, good, "cannot copy ", from.string(), " to ",
                 to.string(), ": ", std::strerror(errno));
}

void Convert(const fs::path& from, const fs::path& to, const ConvertBenchFlags& flags) {
  const auto source = checkpoint::OpenModel(from);
  const auto read = [&](const model::TensorSpec& spec) { return source->Read(spec); };
  const auto blocks = flags.weights == "q8_0"   ? std::optional(io::GgufType::kQ8_0)
                      : flags.weights == "q4_0" ? std::optional(io::GgufType::kQ4_0)
                                                : std::nullopt;
  const at::ScalarType dtype =
      blocks ? at::kBFloat16 : checkpoint::ToScalarType(config::ParseDtype(flags.weights));
  if (flags.format == "gguf") {
    checkpoint::SaveGguf(source->config(), read, to, blocks.value_or(checkpoint::GgufTypeOf(dtype)),
                         "bench", {});
  } else if (flags.format == "lwm-jax") {
    checkpoint::SaveLwmCheckpoint(source->config(), read, to, dtype);
  } else {
    checkpoint::SaveModelDirectory(source->config(), read, to, {.dtype = dtype, .blocks = blocks});
  }
}

double SecondsOf(const fs::path& result, const std::function<void()>& run) {
  const double start = MonotonicSeconds();
  run();
  const double seconds = MonotonicSeconds() - start;
  fs::remove_all(result);
  return seconds;
}

Json MeasureConvert(const ConvertBenchFlags& flags) {
  const config::ModelConfig config = SevenBillionShaped(flags.gigabytes);
  const double bytes = 2 * static_cast<double>(config.ParameterCount());
  const double written = flags.weights == "f32" ? 2 * bytes : bytes;
  const auto free_bytes = static_cast<double>(fs::space(flags.folder).available);
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, written * 1.05 < free_bytes, flags.folder, " has ",
                 free_bytes / 1e9, " GB left, the result takes ", written / 1e9,
                 "; ask for less with --gigabytes or name another --folder");
  const ScratchFolder scratch(flags.folder);
  const fs::path model = scratch / "model", result = scratch / "result";
  const auto size = static_cast<double>(WriteSparseModel(config, model));
  const auto copy = [&] { Copy(model / "model.safetensors", result); };
  // One copy before and one after, since a disk's speed changes while one looks.
  double copy_seconds = SecondsOf(result, copy);
  const double seconds = SecondsOf(result, [&] { Convert(model, result, flags); });
  copy_seconds = std::min(copy_seconds, SecondsOf(result, copy));
  return {{"format", flags.format},
          {"weights", flags.weights},
          {"file_gb", size / 1e9},
          {"layers", config.num_hidden_layers},
          {"seconds", seconds},
          {"gb_per_s", size / seconds / 1e9},
          {"copy_gb_per_s", size / copy_seconds / 1e9},
          {"ratio", copy_seconds / seconds}};
}

}  // namespace

Bench::Measure AddConvertBench(CLI::App& command) {
  auto flags = std::make_shared<ConvertBenchFlags>();
  command.add_option("--gigabytes", flags->gigabytes, "size of the bf16 file, 10^9 bytes (13: 7B)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--format", flags->format, "what to write")
      ->check(CLI::IsMember({"hf", "lwm-jax", "gguf"}))
      ->capture_default_str();
  command.add_option("--weights", flags->weights, "type written")
      ->check(CLI::IsMember({"f32", "bf16", "f16", "q8_0", "q4_0"}))
      ->capture_default_str();
  command.add_option("--folder", flags->folder, "where to write")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  AddExamples(command,
              "  lwm bench convert --gigabytes 2 --format gguf --weights q8_0\n"
              "  lwm bench convert --gigabytes 13 --folder /big/disk");
  return [flags](RunContext& context, const RunFlags&) {
    LWM_REQUIRE(context.world().size() == 1, "lwm bench convert runs on one rank");
    LWM_REQUIRE(flags->format != "lwm-jax" || !flags->weights.starts_with("q"),
                "the JAX stream holds no quantised weights");
    return MeasureConvert(*flags);
  };
}

}  // namespace lwm::app
