// lwm convert: checkpoints of every known format to and from model directories.

#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "command.h"
#include "commands.h"
#include "commands/convert_tokenizer.h"
#include "commands/convert_vqgan.h"
#include "flags/dtype_flag.h"
#include "flags/model_flags.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/checkpoint/add_vision.h"
#include "lwm/checkpoint/export.h"
#include "lwm/checkpoint/import.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/stored_form.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/data/tokenizer.h"
#include "lwm/data/tokenizer_files.h"
#include "lwm/io/checkpoint_place.h"
#include "lwm/io/gguf_blocks.h"

namespace lwm::app {
namespace {
namespace fs = std::filesystem;

struct ConvertFlags {
  std::string from, to, format, quantize, config, tokenizer;
  std::optional<config::Dtype> dtype;  // as stored if not given
  bool add_vision = false;
  int64_t vision_vocab = 8448;
  uint64_t seed = 42;
  double max_shard_gb = 5;
  int threads = 0;
};

at::ScalarType StoredDtype(const checkpoint::ModelSource& source) {
  const auto spec = model::NonLayerTensorSpecs(source.config()).front();
  const at::ScalarType stored = source.Read(spec).scalar_type();
  return stored == at::kDouble ? at::kFloat : stored;
}

at::ScalarType TargetDtype(const ConvertFlags& flags, const checkpoint::ModelSource& source) {
  return flags.dtype ? checkpoint::ToScalarType(*flags.dtype) : StoredDtype(source);
}

// The folder of the weights that `named` leads to, with tokenizer and configs.
fs::path FolderOf(const fs::path& named) {
  const fs::path path = io::FindCheckpoint(named);
  if (fs::is_directory(path)) return path;
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// The model to write: config, weights, and the files beside them.
struct Conversion {
  config::ModelConfig config;
  checkpoint::ReadWeight read;
  at::ScalarType dtype;
  std::unique_ptr<data::Tokenizer> tokenizer;  // none: nullptr
  std::map<std::string, std::string> files;    // beside the weights: name -> content
  std::map<std::string, fs::path> folders;     // name -> what to copy
};

std::optional<io::GgufType> BlocksOf(const ConvertFlags& flags) {
  if (flags.quantize.empty()) return {};
  return flags.quantize == "q8_0" ? io::GgufType::kQ8_0 : io::GgufType::kQ4_0;
}

bool EndsInGguf(const std::string& path) { return fs::path(path).extension() == ".gguf"; }

void WriteBeside(const Conversion& conversion, const fs::path& folder) {
  data::WriteFiles(conversion.files, folder);
  for (const auto& [name, from] : conversion.folders)
    fs::copy(from, folder / name, fs::copy_options::recursive);
}

void WriteGguf(const ConvertFlags& flags, const Conversion& conversion) {
  const checkpoint::GgufVocabulary vocabulary =
      conversion.tokenizer
          ? GgufVocabularyOf(*conversion.tokenizer, conversion.config, conversion.files)
          : checkpoint::GgufVocabulary();
  const auto save = [&](const fs::path& file) {
    checkpoint::SaveGguf(conversion.config, conversion.read, file,
                         BlocksOf(flags).value_or(checkpoint::GgufTypeOf(conversion.dtype)),
                         fs::path(flags.to).stem().string(), vocabulary);
  };
  if (EndsInGguf(flags.to)) return save(flags.to);
  WriteFolderAtomically(flags.to, [&](const fs::path& folder) { save(folder / "model.gguf"); });
}

// The published layout, with the config.json that the published code is told by hand.
void WriteLwm(const ConvertFlags& flags, const Conversion& conversion) {
  WriteFolderAtomically(flags.to, [&](const fs::path& folder) {
    checkpoint::SaveLwmCheckpoint(conversion.config, conversion.read, folder / "streaming_params",
                                  conversion.dtype);
    const Json json =
        config::ModelConfigToJson(conversion.config, checkpoint::DtypeName(conversion.dtype));
    WriteFileAtomically(folder / "config.json", json.dump(2) + "\n");
    WriteBeside(conversion, folder);
  });
}

void WriteHuggingFace(const ConvertFlags& flags, const Conversion& conversion) {
  checkpoint::SaveOptions options;
  options.dtype = conversion.dtype;
  options.blocks = BlocksOf(flags);
  options.max_shard_bytes = static_cast<int64_t>(flags.max_shard_gb * 1e9);
  options.also = [&](const fs::path& folder) { WriteBeside(conversion, folder); };
  checkpoint::SaveModelDirectory(conversion.config, conversion.read, flags.to, options);
}

Conversion Plan(const ConvertFlags& flags, const checkpoint::ModelSource& source) {
  Conversion conversion;
  conversion.config = source.config();
  conversion.dtype = TargetDtype(flags, source);
  const bool is_folder = fs::is_directory(flags.from);
  conversion.tokenizer = FindTokenizer(flags.tokenizer, source.source(), FolderOf(flags.from),
                                       source.config().vocab_size);
  conversion.files = FilesBesideWeights(FolderOf(flags.from), source.source(),
                                        conversion.tokenizer.get(), conversion.config);
  if (const fs::path vqgan = FolderOf(flags.from) / "vqgan"; is_folder && fs::is_directory(vqgan))
    conversion.folders["vqgan"] = vqgan;
  conversion.read = [&](const model::TensorSpec& spec) { return source.Read(spec); };
  if (flags.add_vision) {
    conversion.config = checkpoint::WithVision(conversion.config, flags.vision_vocab);
    conversion.read = checkpoint::ReadWithVision(conversion.config, conversion.read, flags.seed);
  }
  return conversion;
}

// Without --format: gguf for a target that ends in .gguf, else hf.
void SettleFormat(ConvertFlags& flags) {
  if (flags.format.empty()) flags.format = EndsInGguf(flags.to) ? "gguf" : "hf";
  LWM_REQUIRE(flags.format == "gguf" || !EndsInGguf(flags.to), flags.to, ": --format ",
              flags.format, " writes a folder; name one without .gguf, or leave out --format");
}

void RequireConsistent(const ConvertFlags& flags) {
  LWM_REQUIRE(flags.quantize.empty() || flags.format == "gguf" || flags.format == "hf",
              "--quantize goes with --format hf or gguf");
  LWM_REQUIRE(flags.quantize.empty() || !flags.dtype, "--quantize and --dtype exclude each other");
  checkpoint::RequireNewFolder(flags.to);
}

// The flag given that only a language model can follow, or "".
std::string ModelFlagOf(const ConvertFlags& flags) {
  if (!flags.quantize.empty()) return "--quantize";
  if (flags.add_vision) return "--add-vision";
  return flags.tokenizer.empty() ? "" : "--tokenizer";
}

void RunConvert(const ConvertFlags& flags) {
  RunFlags run;
  run.threads = flags.threads;
  RunContext context(run);
  RequireOneRank(context, "convert");
  RequireConsistent(flags);
  if (ConvertIfVqgan({flags.from, flags.to, flags.format, flags.dtype,
                      flags.config.empty() ? std::nullopt : std::optional(flags.config),
                      ModelFlagOf(flags)}))
    return;
  LWM_REQUIRE(flags.format != "diffusers", flags.from,
              " is no VQGAN; --format diffusers is for those");
  const double start = MonotonicSeconds();
  const auto source = checkpoint::OpenModel(
      flags.from, flags.config.empty() ? std::nullopt : std::optional<fs::path>(flags.config));
  const Conversion conversion = Plan(flags, *source);
  if (flags.format == "gguf") {
    WriteGguf(flags, conversion);
  } else if (flags.format == "lwm-jax") {
    WriteLwm(flags, conversion);
  } else {
    WriteHuggingFace(flags, conversion);
  }
  std::fprintf(stderr, "%s: %lld weights from %s to %s in %s; peak memory %s\n", flags.to.c_str(),
               static_cast<long long>(conversion.config.ParameterCount()),
               std::string(source->source().format()).c_str(), flags.format.c_str(),
               FormatDuration(MonotonicSeconds() - start).c_str(),
               FormatBytes(static_cast<double>(PeakMemoryBytes())).c_str());
}

}  // namespace

void AddConvert(CLI::App& command) {
  auto flags = std::make_shared<ConvertFlags>();
  command
      .add_option("from,--from", flags->from, "checkpoint: a file or a folder, of any known format")
      ->required();
  command.add_option("to,--to", flags->to, "folder to create, or a .gguf file")->required();
  command
      .add_option("--format", flags->format,
                  "what to write (default: gguf when the target ends in .gguf, else hf)")
      ->check(CLI::IsMember({"hf", "lwm-jax", "gguf", "diffusers"}));
  AddDtypeFlag(command, "--dtype", flags->dtype, {"f32", "bf16", "f16"},
               "of the weights written (default: as stored)");
  command.add_option("--quantize", flags->quantize, "matrices in blocks of 32 weights")
      ->check(CLI::IsMember({"q8_0", "q4_0"}));
  command.add_option("--config", flags->config,
                     "config.json in Hugging Face form, for what the source does not say");
  command.add_option("--tokenizer", flags->tokenizer,
                     "tokenizer to put beside the weights (default: the source's)");
  CLI::Option* add_vision =
      command.add_flag("--add-vision", flags->add_vision,
                       "give a text model a vision table and head, drawn at random");
  command.add_option("--vision-vocab", flags->vision_vocab, "codes of the vision table")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->needs(add_vision);
  command.add_option("--seed", flags->seed, "seed of --add-vision")
      ->capture_default_str()
      ->needs(add_vision);
  command.add_option("--max-shard-gb", flags->max_shard_gb, "largest file, 10^9 bytes")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("-t,--threads", flags->threads, "threads (0: all cores)")
      ->check(CLI::NonNegativeNumber);
  AddExamples(command,
              "  lwm convert model.gguf model\n"
              "  lwm convert --from streaming_params --config config.json --to model --dtype bf16\n"
              "  lwm convert --from vqgan --config vq.json --to vqgan-dir --format diffusers\n"
              "  lwm convert model model-q8_0.gguf --quantize q8_0\n"
              "  lwm convert --from model --to model-q8_0 --quantize q8_0\n"
              "  lwm convert --from model --to model-jax --format lwm-jax --dtype bf16\n"
              "  lwm convert --from text-model --to any-model --add-vision --vision-vocab 8448");
  command.callback([flags] {
    SettleFormat(*flags);
    RunConvert(*flags);
  });
}

}  // namespace lwm::app
