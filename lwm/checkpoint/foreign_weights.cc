#include "lwm/checkpoint/foreign_weights.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <string_view>

#include "lwm/base/error.h"
#include "lwm/base/note.h"

namespace lwm::checkpoint {
namespace {
namespace fs = std::filesystem;

constexpr std::string_view kTakeAnother =
    "take the model in BF16, F16 or F32, or as a GGUF file of type Q8_0 or Q4_K_M";
constexpr std::string_view kMerge =
    "merge it into its base model first (PEFT: merge_and_unload, then save_pretrained) and give "
    "the merged folder";

struct Method {
  std::string_view key, name, advice;
};
// quant_method in config.json, its name in print, and how to get plain weights.
constexpr Method kMethods[] = {
    {"bitsandbytes", "bitsandbytes",
     "load it in transformers, call model.dequantize() and save_pretrained, or take the original "
     "model"},
    {"gptq", "GPTQ", kTakeAnother},
    {"awq", "AWQ", kTakeAnother},
    {"gptq or awq", "GPTQ or AWQ", kTakeAnother},
    {"fp8", "FP8", kTakeAnother},
    {"fbgemm_fp8", "FP8 (FBGEMM)", kTakeAnother},
    {"compressed-tensors", "compressed-tensors", kTakeAnother},
    {"mxfp4", "MXFP4",
     "load it in transformers with Mxfp4Config(dequantize=True) and save_pretrained"},
    {"hqq", "HQQ", kTakeAnother},
    {"exl2", "EXL2", kTakeAnother},
    {"exl3", "EXL3", kTakeAnother},
    {"aqlm", "AQLM", kTakeAnother},
    {"quip", "QuIP#", kTakeAnother},
    {"quanto", "quanto", kTakeAnother},
    {"eetq", "EETQ", kTakeAnother},
    {"vptq", "VPTQ", kTakeAnother},
    {"higgs", "HIGGS", kTakeAnother},
    {"spqr", "SpQR", kTakeAnother},
    {"auto-round", "AutoRound", kTakeAnother},
    {"bitnet", "BitNet", kTakeAnother},
    {"torchao", "torchao", kTakeAnother},
    {"modelopt", "ModelOpt", kTakeAnother},
    {"mlx", "MLX", kTakeAnother},
};

[[noreturn]] void RefuseMethod(const std::string& where, std::string key,
                               const std::string& details) {
  std::transform(key.begin(), key.end(), key.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  std::string name = key;
  std::string_view advice = kTakeAnother;
  for (const Method& method : kMethods) {
    if (method.key != key) continue;
    name = method.name;
    advice = method.advice;
  }
  throw Error(ErrorCode::kInvalidArgument, Cat(where, ": weights quantised by ", name, details,
                                               ", which is not supported; ", advice));
}

// " in 4 bits (nf4)".
std::string BitsIn(const Json& quantization) {
  const auto flag = [&](const char* key) {
    return quantization.contains(key) && quantization.at(key) == Json(true);
  };
  for (const char* key : {"bits", "num_bits", "nbits", "weight_bits"})
    if (quantization.contains(key) && quantization.at(key).is_number_integer())
      return Cat(" in ", quantization.at(key).dump(), " bits");
  if (flag("load_in_8bit") || flag("_load_in_8bit")) return " in 8 bits (LLM.int8)";
  if (!flag("load_in_4bit") && !flag("_load_in_4bit")) return "";
  const Json type = quantization.value("bnb_4bit_quant_type", Json("fp4"));
  return type.is_string() ? Cat(" in 4 bits (", type.get<std::string>(), ")") : " in 4 bits";
}

std::string MethodIn(const Json& quantization) {
  for (const char* key : {"quant_method", "quant_algo", "quant_type"})
    if (quantization.contains(key) && quantization.at(key).is_string())
      return quantization.at(key).get<std::string>();
  const bool has_bits = !BitsIn(quantization).empty();
  if (quantization.contains("bnb_4bit_quant_type") || quantization.contains("load_in_8bit"))
    return "bitsandbytes";
  return has_bits && quantization.contains("group_size") ? "mlx" : "a method it does not name";
}

bool HoldsPlainWeights(const fs::path& folder) {
  for (const char* name : {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                           "pytorch_model.bin.index.json"})
    if (fs::exists(folder / name)) return true;
  return false;
}

void RefuseAdapterFolder(const fs::path& folder) {
  const fs::path file = folder / "adapter_config.json";
  if (!fs::exists(file)) return;
  if (HoldsPlainWeights(folder))
    return Note(folder.string() + ": the adapter beside the weights is not applied");
  const Json config = ReadJsonFile(file);
  const auto text = [&](const char* key) {
    const bool has = config.is_object() && config.contains(key) && config.at(key).is_string();
    return has ? config.at(key).get<std::string>() : std::string();
  };
  const std::string type = text("peft_type"), base = text("base_model_name_or_path");
  throw Error(ErrorCode::kInvalidArgument,
              Cat(folder.string(), ": an adapter (PEFT", type.empty() ? "" : ", ", type,
                  ") without its base model", base.empty() ? "" : " ", base, "; ", kMerge));
}

// Files that quantisers write beside the weights, and their method when the file does not name it.
struct LeftFile {
  const char* name;
  const char* method;
};
constexpr LeftFile kLeftFiles[] = {{"quantize_config.json", "gptq"},
                                   {"quant_config.json", "awq"},
                                   {"hf_quant_config.json", "modelopt"}};

void RefuseLeftFiles(const fs::path& folder) {
  for (const LeftFile& file : kLeftFiles) {
    if (!fs::exists(folder / file.name)) continue;
    const Json json = ReadJsonFile(folder / file.name);
    RefuseMethod(folder.string(), file.method,
                 Cat(json.is_object() ? BitsIn(json) : "", " (", file.name, ")"));
  }
}

// A tensor whose name ends with `suffix` tells the method.
struct Mark {
  std::string_view suffix, method;
};
constexpr Mark kMarks[] = {
    {".g_idx", "gptq"},
    {".qzeros", "gptq or awq"},
    {".absmax", "bitsandbytes"},
    {".quant_map", "bitsandbytes"},
    {"__nf4", "bitsandbytes"},
    {"__fp4", "bitsandbytes"},
    {".SCB", "bitsandbytes"},
    {".weight_packed", "compressed-tensors"},
    {".weight_scale_inv", "fp8"},
    {".weight_scale", "fp8"},
    {"_proj_blocks", "mxfp4"},
    {".q_invperm", "exl2"},
    {".q_scale_max", "exl2"},
    {".trellis", "exl3"},
    {".W_q", "hqq"},
    {".codebooks", "aqlm"},
    {".Qidxs", "quip"},
    {"._data", "quanto"},
    {".biases", "mlx"},
};

using Test = std::function<bool(std::string_view name)>;

// The first tensor whose name passes; "" when none does.
std::string FindName(const io::TensorSource& source, const Test& test) {
  for (const io::TensorInfo& info : source.infos())
    if (test(info.name)) return info.name;
  return "";
}

bool IsAdapterName(std::string_view name) {
  for (const std::string_view part :
       {".lora_A", ".lora_B", ".lora_embedding_A", ".lora_magnitude_vector", ".hada_w1", ".lokr_w",
        ".ia3_l", ".oft_r", ".vera_lambda", "prompt_embeddings", ".base_layer."})
    if (name.find(part) != std::string_view::npos) return true;
  return false;
}

bool IsVqganName(std::string_view name) {
  return name.ends_with("quantize.embedding.weight") || name.ends_with("quantize/embeddings");
}

}  // namespace

void RefuseQuantizedConfig(const Json& config, const std::string& where) {
  for (const char* key : {"quantization_config", "quantization", "compression_config"}) {
    if (!config.is_object() || !config.contains(key) || !config.at(key).is_object()) continue;
    const Json& quantization = config.at(key);
    const std::string method = MethodIn(quantization);
    if (method == "lwm_blocks") continue;  // this program's own
    RefuseMethod(where, method, BitsIn(quantization));
  }
}

void RefuseForeignFolder(const fs::path& place) {
  const fs::path folder = fs::is_directory(place) ? place : place.parent_path();
  if (fs::is_directory(place)) RefuseAdapterFolder(folder);
  if (!fs::exists(folder / "config.json")) return RefuseLeftFiles(folder);
  const Json config = ReadJsonFile(folder / "config.json");
  LWM_REQUIRE(!config.is_object() || config.value("_class_name", Json()) != Json("VQModel"),
              place.string(),
              ": a VQGAN, which turns images into codes and back, not a language model; lwm "
              "vqgan and --vqgan take it");
  RefuseQuantizedConfig(config, place.string());
  RefuseLeftFiles(folder);
}

void RefuseForeignTensors(const io::TensorSource& source) {
  const std::string& where = source.where();
  const std::string adapter = FindName(source, IsAdapterName);
  LWM_REQUIRE(adapter.empty(), where, ": holds an adapter (LoRA or another of PEFT; tensor ",
              adapter, "), not a whole model; ", kMerge);
  LWM_REQUIRE(FindName(source, IsVqganName).empty(), where,
              ": a VQGAN, which turns images into codes and back, not a language model; lwm "
              "vqgan and --vqgan take it");
  for (const Mark& mark : kMarks) {
    const std::string name =
        FindName(source, [&](std::string_view tensor) { return tensor.ends_with(mark.suffix); });
    if (!name.empty()) RefuseMethod(where, std::string(mark.method), Cat(" (tensor ", name, ")"));
  }
  LWM_REQUIRE(!source.contains("tok_embeddings.weight"), where,
              ": a LLaMA under Meta's own names (tok_embeddings.weight); convert it with "
              "transformers' convert_llama_weights_to_hf.py first");
  LWM_REQUIRE(!source.contains("transformer.wte.weight") && !source.contains("wte.weight"), where,
              ": weights of a GPT-2 or a model like it (wte.weight); only LLaMA runs");
}

}  // namespace lwm::checkpoint
