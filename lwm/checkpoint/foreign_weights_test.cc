#include "lwm/checkpoint/foreign_weights.h"

#include <gtest/gtest.h>

#include <fstream>

#include "lwm/base/error.h"
#include "lwm/checkpoint/import.h"
#include "lwm/io/safetensors.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::checkpoint {
namespace {

using testing_support::ExpectError;

constexpr char kLlama[] = R"("model_type": "llama", "architectures": ["LlamaForCausalLM"],
    "vocab_size": 8, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
    "num_attention_heads": 1, "max_position_embeddings": 16)";

class ForeignWeightsTest : public testing::Test {
 protected:
  void Make(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name) << content;
  }
  // A plain LLaMA's config, with more fields.
  void MakeConfig(const std::string& more = "") {
    Make("config.json", Cat("{", kLlama, more.empty() ? "" : ", ", more, "}"));
  }
  void MakeTensors(const std::vector<std::string>& names,
                   const std::string& file = "model.safetensors") {
    std::vector<io::TensorInfo> infos;
    for (const std::string& name : names) infos.push_back({name, io::DType::kU8, {1}});
    io::SafetensorsWriter writer(folder_ / file, infos);
    for (const std::string& name : names) writer.Write(name, std::vector<std::byte>(1));
    writer.Finish();
  }
  void ExpectRefused(const std::vector<std::string>& parts) {
    ExpectError([&] { OpenModel(folder_.path()); }, ErrorCode::kInvalidArgument, parts);
  }

  testing_support::TemporaryFolder folder_;
};

TEST_F(ForeignWeightsTest, AdapterWithoutItsBaseModelIsNamed) {
  Make("adapter_config.json",
       R"({"peft_type": "LORA", "base_model_name_or_path": "acme/tiny", "r": 8})");
  MakeTensors({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"},
              "adapter_model.safetensors");
  ExpectRefused({"an adapter (PEFT, LORA)", "base model acme/tiny", "merge"});
  std::filesystem::remove(folder_ / "adapter_config.json");
  ExpectRefused({"holds an adapter", "lora_A", "merge"});
}

TEST_F(ForeignWeightsTest, AdapterThatWasNotMergedIsNamed) {
  MakeConfig();
  MakeTensors({"base_model.model.model.embed_tokens.weight",
               "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"});
  ExpectRefused({"adapter", "base_layer", "merge_and_unload"});
}

TEST_F(ForeignWeightsTest, MethodInTheConfigIsNamed) {
  const std::pair<const char*, std::vector<std::string>> cases[] = {
      {R"("quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true,
          "bnb_4bit_quant_type": "nf4"})",
       {"bitsandbytes in 4 bits (nf4)", "dequantize()"}},
      {R"("quantization_config": {"load_in_8bit": true})", {"bitsandbytes in 8 bits (LLM.int8)"}},
      {R"("quantization_config": {"quant_method": "gptq", "bits": 4})", {"GPTQ in 4 bits"}},
      {R"("quantization_config": {"quant_method": "awq", "bits": 4})", {"AWQ in 4 bits"}},
      {R"("quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"})",
       {"by FP8,"}},
      {R"("quantization_config": {"quant_method": "mxfp4"})", {"MXFP4", "dequantize=True"}},
      {R"("quantization_config": {"quant_method": "compressed-tensors"})", {"compressed-tensors"}},
      {R"("compression_config": {"quant_method": "compressed-tensors"})", {"compressed-tensors"}},
      {R"("quantization_config": {"quant_method": "hqq", "nbits": 4})", {"HQQ"}},
      {R"("quantization_config": {"quant_method": "exl2", "bits": 5})", {"EXL2 in 5 bits"}},
      {R"("quantization_config": {"quant_method": "NewMethod"})", {"by newmethod,"}},
      {R"("quantization": {"group_size": 64, "bits": 4})", {"MLX in 4 bits"}},
      {R"("quantization_config": {})", {"a method it does not name"}},
  };
  MakeTensors({"model.embed_tokens.weight"});
  for (const auto& [more, parts] : cases) {
    MakeConfig(more);
    ExpectRefused(parts);
    ExpectRefused({"which is not supported; "});
  }
  RefuseQuantizedConfig(Json{{"quantization_config", {{"quant_method", "lwm_blocks"}}}}, "x");
  RefuseQuantizedConfig(Json{{"quantization_config", Json()}}, "x");
}

TEST_F(ForeignWeightsTest, MethodInTheTensorsIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"model.layers.0.self_attn.q_proj.g_idx", "GPTQ"},
      {"model.layers.0.self_attn.q_proj.qzeros", "GPTQ or AWQ"},
      {"model.layers.0.self_attn.q_proj.weight.absmax", "bitsandbytes"},
      {"model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__fp4", "bitsandbytes"},
      {"model.layers.0.self_attn.q_proj.SCB", "bitsandbytes"},
      {"model.layers.0.self_attn.q_proj.weight_packed", "compressed-tensors"},
      {"model.layers.0.self_attn.q_proj.weight_scale_inv", "FP8"},
      {"model.layers.0.mlp.experts.gate_up_proj_blocks", "MXFP4"},
      {"model.layers.0.self_attn.q_proj.q_invperm", "EXL2"},
      {"model.layers.0.self_attn.q_proj.trellis", "EXL3"},
      {"model.layers.0.self_attn.q_proj.W_q", "HQQ"},
      {"model.layers.0.self_attn.q_proj.biases", "MLX"}};
  MakeConfig();
  for (const auto& [name, method] : cases) {
    MakeTensors({"model.embed_tokens.weight", name});
    ExpectRefused({Cat("quantised by ", method, " (tensor ", name)});
  }
}

TEST_F(ForeignWeightsTest, FilesOfQuantisersAreRead) {
  MakeConfig();
  MakeTensors({"model.embed_tokens.weight"});
  Make("quantize_config.json", R"({"bits": 3, "group_size": 128})");
  ExpectRefused({"GPTQ in 3 bits (quantize_config.json)"});
}

TEST_F(ForeignWeightsTest, VqganIsNoLanguageModel) {
  Make("config.json", R"({"_class_name": "VQModel", "in_channels": 3})");
  MakeTensors({"quantize.embedding.weight"}, "diffusion_pytorch_model.safetensors");
  ExpectRefused({"a VQGAN", "not a language model"});
  std::filesystem::remove(folder_ / "config.json");
  ExpectRefused({"a VQGAN", "not a language model"});
}

TEST_F(ForeignWeightsTest, OtherNamesForALlamaAreNamed) {
  MakeTensors({"tok_embeddings.weight", "layers.0.attention.wq.weight"});
  ExpectRefused({"Meta's own names", "convert_llama_weights_to_hf"});
  MakeTensors({"transformer.wte.weight"});
  ExpectRefused({"GPT-2"});
}

TEST_F(ForeignWeightsTest, NamesOfNoModelAreShown) {
  MakeConfig();
  MakeTensors({"encoder.block.0.weight"});
  ExpectError([&] { OpenModel(folder_.path()); }, ErrorCode::kCorruptData,
              {"model.embed_tokens.weight is missing", "named as encoder.block.0.weight is"});
  MakeTensors({"model.embed_tokens.weight"}, "model-00001-of-00002.safetensors");
  ExpectError([&] { OpenModel(folder_ / "model-00001-of-00002.safetensors"); },
              ErrorCode::kCorruptData, {"is missing", "one shard of several: name its folder"});
}

}  // namespace
}  // namespace lwm::checkpoint
