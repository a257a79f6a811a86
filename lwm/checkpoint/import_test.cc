#include "lwm/checkpoint/import.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <map>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/checkpoint/add_vision.h"
#include "lwm/checkpoint/export.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/rotary_pairs.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/io/msgpack_writer.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_model.h"

namespace lwm::checkpoint {
namespace {

using testing_support::TemporaryFolder;
using Weights = std::map<std::string, at::Tensor>;

// Rows of two blocks of quantised numbers.
config::ModelConfig SmallConfig() {
  config::ModelConfig config = testing_support::TinyConfig();
  config.vocab_size = 40;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.max_position_embeddings = 128;
  config.rope_theta = 5e7;
  return config;
}

Weights RandomWeights(const config::ModelConfig& config, at::ScalarType dtype = at::kBFloat16) {
  at::manual_seed(1);
  Weights weights;
  for (const model::TensorSpec& spec : AllTensorSpecs(config))
    weights[spec.name] = at::randn(spec.shape).to(dtype);
  return weights;
}

ReadWeight Reader(const Weights& weights) {
  return [&](const model::TensorSpec& spec) { return weights.at(spec.name); };
}

void ExpectHolds(const ModelSource& source, const Weights& weights, double tolerance = 0) {
  const auto specs = AllTensorSpecs(source.config());
  EXPECT_EQ(specs.size(), weights.size());
  for (const model::TensorSpec& spec : specs) {
    const at::Tensor read = source.Read(spec).to(at::kDouble);
    const at::Tensor difference = (read - weights.at(spec.name).to(at::kDouble)).abs();
    EXPECT_LE(difference.max().item<double>(), tolerance) << spec.name;
  }
}

void WriteConfig(const config::ModelConfig& config, const std::filesystem::path& path) {
  WriteFileAtomically(path, config::ModelConfigToJson(config, "bfloat16").dump());
}

std::string ErrorOf(const std::function<void()>& run) {
  try {
    run();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

void ExpectMentions(const std::string& message, const std::string& part) {
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(RotaryPairsTest, HalvesAndPairsFollowThePublishedFormula) {
  const int64_t heads = 3, dim = 8;
  const at::Tensor pairs = at::randn({heads * dim, 5});
  const at::Tensor halves = HalvesFromPairs(pairs, heads);
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t half = 0; half < 2; ++half)
      for (int64_t i = 0; i < dim / 2; ++i)
        EXPECT_TRUE(at::equal(halves[h * dim + half * dim / 2 + i], pairs[h * dim + 2 * i + half]));
  EXPECT_TRUE(at::equal(PairsFromHalves(halves, heads), pairs));
}

TEST(ImportTest, ModelDirectoryHoldsWhatWasSavedWholeAndInShards) {
  for (const bool tied : {false, true}) {
    for (const int64_t shard_bytes : {int64_t{1} << 40, int64_t{20000}, int64_t{1}}) {
      TemporaryFolder folder;
      config::ModelConfig config = SmallConfig();
      config.tie_word_embeddings = tied;
      const Weights weights = RandomWeights(config);
      SaveModelDirectory(
          config, Reader(weights), folder / "m",
          {.max_shard_bytes = shard_bytes, .also = [](const std::filesystem::path& into) {
             WriteFileAtomically(into / "tokenizer.model", "abc");
           }});
      ExpectHolds(*OpenModel(folder / "m"), weights);
      EXPECT_EQ(ReadFile(folder / "m/tokenizer.model"), "abc");
      EXPECT_EQ(std::filesystem::exists(folder / "m/model.safetensors"), shard_bytes > 1'000'000);
    }
  }
}

TEST(ImportTest, LoadedModelHasTheDirectorysWeights) {
  TemporaryFolder folder;
  const config::ModelConfig config = SmallConfig();
  const Weights weights = RandomWeights(config);
  SaveModelDirectory(config, Reader(weights), folder / "m", {});
  model::ResidentWeights loaded = LoadModel(folder / "m", at::kFloat);
  size_t count = 0;
  loaded.Visit([&](const model::TensorSpec& spec, at::Tensor& weight, at::Tensor&) {
    EXPECT_EQ(weight.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(weight, weights.at(spec.name).to(at::kFloat))) << spec.name;
    ++count;
  });
  EXPECT_EQ(count, weights.size());
}

TEST(ImportTest, JaxStreamGivesTheWeightsBack) {
  TemporaryFolder folder;
  config::ModelConfig config = SmallConfig();
  config.vision_vocab_size = 24;
  const Weights weights = RandomWeights(config);
  SaveLwmCheckpoint(config, Reader(weights), folder / "streaming_params", at::kBFloat16);
  WriteConfig(config, folder / "c.json");
  ExpectHolds(*OpenModel(folder / "streaming_params", folder / "c.json"), weights);
}

// Every weight as one record per layer and tensor, under `prefix`.
void WriteLayerwise(const config::ModelConfig& config, const Weights& weights,
                    const std::filesystem::path& path, const std::string& prefix) {
  io::MsgpackWriter writer(path);
  const auto write = [&](const std::string& key, const at::Tensor& tensor) {
    writer.Begin({key, ToDType(tensor.scalar_type()), tensor.sizes().vec()});
    writer.Write(TensorBytes(tensor));
  };
  if (!prefix.empty()) write("step", at::ones({}, at::kInt));
  for (const model::TensorSpec& spec : AllTensorSpecs(config)) {
    std::string key = LwmNameOf(spec.name);
    if (const size_t at = key.find("scan_decoder"); at != std::string::npos)
      key.replace(at, 12, spec.name.substr(13, spec.name.find('.', 13) - 13));
    at::Tensor weight = weights.at(spec.name);
    if (const int64_t heads = RotaryHeadsOf(config, spec.name))
      weight = PairsFromHalves(weight, heads);
    if (key.ends_with("kernel") && weight.dim() == 2) weight = weight.t().contiguous();
    write(prefix + key, weight);
    if (!prefix.empty()) write("opt_state/mu/params/" + key, weight);
  }
  writer.Finish();
}

TEST(ImportTest, JaxLayersOneByOneAndWholeTrainStatesAreRead) {
  for (const char* prefix : {"", "params/", "params/params/"}) {
    TemporaryFolder folder;
    const config::ModelConfig config = SmallConfig();
    const Weights weights = RandomWeights(config);
    WriteLayerwise(config, weights, folder / "p", prefix);
    WriteConfig(config, folder / "config.json");
    ExpectHolds(*OpenModel(folder / "p"), weights);
  }
}

TEST(ImportTest, JaxStacksAlongTheSecondAxisAreRead) {
  TemporaryFolder folder;
  const config::ModelConfig config = SmallConfig();
  const Weights weights = RandomWeights(config);
  SaveLwmCheckpoint(config, Reader(weights), folder / "axis0", at::kBFloat16);
  const auto source = io::OpenTensorSource(folder / "axis0");
  io::MsgpackWriter writer(folder / "axis1");
  for (const io::TensorInfo& info : source->infos()) {
    at::Tensor tensor = ReadTensor(*source, info.name);
    if (info.name.find("scan_decoder") != std::string::npos)
      tensor = tensor.transpose(0, 1).contiguous();
    writer.Begin({info.name, info.dtype, tensor.sizes().vec()});
    writer.Write(TensorBytes(tensor));
  }
  writer.Finish();
  WriteConfig(config, folder / "c.json");
  ExpectHolds(*OpenModel(folder / "axis1", folder / "c.json"), weights);
}

TEST(ImportTest, GgufGivesConfigAndWeightsBack) {
  for (const bool tied : {false, true}) {
    TemporaryFolder folder;
    config::ModelConfig config = SmallConfig();
    config.tie_word_embeddings = tied;
    config.rms_norm_eps = 1e-5;
    config.rope_scaling = {.type = config::RopeScaling::Type::kLinear, .factor = 4};
    const Weights weights = RandomWeights(config);
    const std::pair<io::GgufType, double> cases[] = {{io::GgufType::kF32, 0},
                                                     {io::GgufType::kBF16, 0},
                                                     {io::GgufType::kF16, 1e-6},
                                                     {io::GgufType::kQ8_0, 5.0 / 127},
                                                     {io::GgufType::kQ4_0, 5.0 / 8}};
    for (const auto& [type, tolerance] : cases) {
      SaveGguf(config, Reader(weights), folder / "m.gguf", type, "small", {});
      const auto source = OpenModel(folder / "m.gguf");
      EXPECT_EQ(source->config().rope_theta, config.rope_theta);
      EXPECT_EQ(source->config().rms_norm_eps, 1e-5);
      EXPECT_EQ(source->config().head_dim, 8);
      EXPECT_EQ(source->config().num_key_value_heads, 2);
      EXPECT_EQ(source->config().tie_word_embeddings, tied);
      EXPECT_EQ(source->config().rope_scaling.factor, 4);
      ExpectHolds(*source, weights, tolerance);
    }
  }
}

TEST(ImportTest, DirectoryInBlocksHoldsTheNumbersOfGguf) {
  for (const io::GgufType type : {io::GgufType::kQ8_0, io::GgufType::kQ4_0}) {
    TemporaryFolder folder;
    config::ModelConfig config = SmallConfig();
    config.intermediate_size = 80;  // rows of down_proj are no whole blocks
    const Weights weights = RandomWeights(config);
    SaveGguf(config, Reader(weights), folder / "m.gguf", type, "small", {});
    SaveModelDirectory(config, Reader(weights), folder / "m",
                       {.blocks = type, .max_shard_bytes = 20000});
    const auto gguf = OpenModel(folder / "m.gguf"), directory = OpenModel(folder / "m");
    SaveModelDirectory(config, [&](const model::TensorSpec& spec) { return directory->Read(spec); },
                       folder / "again", {.blocks = type});
    const auto again = OpenModel(folder / "again");
    for (const model::TensorSpec& spec : AllTensorSpecs(config)) {
      const at::Tensor expected = gguf->Read(spec);
      EXPECT_TRUE(at::equal(directory->Read(spec), expected)) << spec.name;
      EXPECT_TRUE(at::equal(again->Read(spec), expected)) << spec.name;
      const bool ragged = spec.name.ends_with("down_proj.weight");
      const io::TensorSource& source = directory->source();
      EXPECT_EQ(source.Encoding(source.IndexOf(spec.name)),
                spec.shape.size() < 2 ? "F32"
                : ragged              ? "F16"
                                      : io::FindGgufType(static_cast<uint32_t>(type))->name);
    }
  }
}

TEST(ImportTest, DirectoryInBlocksMayHoldVision) {
  TemporaryFolder folder;
  config::ModelConfig config = SmallConfig();
  config.vision_vocab_size = 24;
  const Weights weights = RandomWeights(config);
  SaveModelDirectory(config, Reader(weights), folder / "m", {.blocks = io::GgufType::kQ8_0});
  ExpectHolds(*OpenModel(folder / "m"), weights, 5.0 / 127);
  EXPECT_EQ(ReadJsonFile(folder / "m/config.json").at("quantization_config").at("blocks"), "Q8_0");
}

TEST(ImportTest, GgufOfVisionOrUnstatedScalingIsRefused) {
  TemporaryFolder folder;
  config::ModelConfig config = SmallConfig();
  config.vision_vocab_size = 24;
  const Weights weights = RandomWeights(config);
  const auto save = [&] {
    SaveGguf(config, Reader(weights), folder / "m.gguf", io::GgufType::kF32, "small", {});
  };
  ExpectMentions(ErrorOf(save), "vision_embed_tokens");
  config.vision_vocab_size = 0;
  config.rope_scaling.type = config::RopeScaling::Type::kLlama3;
  ExpectMentions(ErrorOf(save), "rope scaling");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ImportTest, Llama2cModelIsReadAndItsSizeMustFit) {
  TemporaryFolder folder;
  config::ModelConfig config = SmallConfig();
  config.head_dim = 16;
  config.tie_word_embeddings = true;
  const Weights weights = RandomWeights(config, at::kFloat);
  std::ofstream out(folder / "m.bin", std::ios::binary);
  const int32_t header[] = {64, 96, 3, 4, 2, 40, 128};
  out.write(reinterpret_cast<const char*>(header), sizeof(header));
  const auto write = [&](at::Tensor tensor) {
    const auto bytes = TensorBytes(tensor = tensor.contiguous());
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<long>(bytes.size()));
  };
  write(weights.at("model.embed_tokens.weight"));
  for (const char* name : {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj",
                           "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm",
                           "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"}) {
    for (int layer = 0; layer < 3; ++layer) {
      const std::string full = Cat("model.layers.", layer, ".", name, ".weight");
      const int64_t heads = RotaryHeadsOf(config, full);
      write(heads ? PairsFromHalves(weights.at(full), heads) : weights.at(full));
    }
  }
  write(weights.at("model.norm.weight"));
  write(at::zeros({2, 128, 8}));  // rotary tables, left empty
  out.close();
  const auto source = OpenModel(folder / "m.bin");
  EXPECT_EQ(source->config().max_position_embeddings, 128);
  ExpectHolds(*source, weights);
  std::filesystem::resize_file(folder / "m.bin", std::filesystem::file_size(folder / "m.bin") - 4);
  EXPECT_NE(ErrorOf([&] { OpenModel(folder / "m.bin"); }), "");
}

// The error of reading every weight of a directory whose weights `damage` has changed.
std::string ErrorAfter(const std::function<void(Weights&)>& damage) {
  TemporaryFolder folder;
  const config::ModelConfig config = SmallConfig();
  Weights weights = RandomWeights(config);
  damage(weights);
  SaveTensors(folder / "model.safetensors", {weights.begin(), weights.end()});
  WriteConfig(config, folder / "config.json");
  return ErrorOf([&] { LoadModel(folder.path(), at::kFloat); });
}

TEST(ImportTest, EachDefectIsOneLineThatNamesTheWeight) {
  EXPECT_EQ(ErrorAfter([](Weights&) {}), "");
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  ExpectMentions(ErrorAfter([&](Weights& w) { w.erase(name); }), name + " is missing");
  ExpectMentions(ErrorAfter([&](Weights& w) { w["model.layers.3.mlp.up_proj.weight"] = w[name]; }),
                 "model.layers.3.mlp.up_proj.weight");
  ExpectMentions(
      ErrorAfter([&](Weights& w) { w["model.layers.0.self_attn.q_proj.bias"] = w[name]; }),
      "q_proj.bias");
  ExpectMentions(ErrorAfter([&](Weights& w) { w[name] = w[name].t(); }), name);
  ExpectMentions(ErrorAfter([&](Weights& w) { w[name] = w[name].to(at::kInt); }), "float");
  for (const double value :
       {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()})
    ExpectMentions(ErrorAfter([&](Weights& w) { w[name][95][63] = value; }), name + " holds NaN");
  EXPECT_EQ(ErrorAfter([&](Weights& w) {
              w["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::ones({4});
            }),
            "");
}

// A file of nothing but holes, larger than any memory.
TEST(ImportTest, ModelThatMemoryDoesNotHoldIsRefusedBeforeAnyWork) {
  const TemporaryFolder folder;
  config::ModelConfig config = SmallConfig();
  config.vocab_size = 1 << 28;
  config.hidden_size = 2048;
  Json header = Json::object();
  int64_t end = 0;
  for (const model::TensorSpec& spec : AllTensorSpecs(config)) {
    int64_t bytes = 2;
    for (const int64_t size : spec.shape) bytes *= size;
    header[spec.name] = {
        {"dtype", "BF16"}, {"shape", spec.shape}, {"data_offsets", {end, end + bytes}}};
    end += bytes;
  }
  const std::string text = header.dump();
  const uint64_t size = text.size();
  std::ofstream(folder / "model.safetensors", std::ios::binary)
      << std::string(reinterpret_cast<const char*>(&size), sizeof size) << text;
  std::filesystem::resize_file(folder / "model.safetensors",
                               sizeof size + size + static_cast<uint64_t>(end));
  WriteFileAtomically(folder / "config.json", ModelConfigToJson(config, "bfloat16").dump());
  try {
    LoadModel(folder.path(), at::kBFloat16);
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_NE(std::string(error.what()).find("the weights in bfloat16 need 2.0 TiB of memory"),
              std::string::npos)
        << error.what();
  }
}

TEST(ImportTest, SizesAreNeverGuessed) {
  TemporaryFolder folder;
  const config::ModelConfig config = SmallConfig();
  const Weights weights = RandomWeights(config);
  SaveLwmCheckpoint(config, Reader(weights), folder / "params", at::kBFloat16);
  ExpectMentions(ErrorOf([&] { OpenModel(folder / "params"); }), "--config");
}

TEST(ImportTest, FailedSaveLeavesNothingBehind) {
  TemporaryFolder folder;
  const config::ModelConfig config = SmallConfig();
  Weights weights = RandomWeights(config, at::kFloat);
  weights["model.norm.weight"][0] = 1e6;
  const auto save = [&](at::ScalarType dtype) {
    return ErrorOf(
        [&] { SaveModelDirectory(config, Reader(weights), folder / "m", {.dtype = dtype}); });
  };
  ExpectMentions(save(at::kHalf), "model.norm.weight is too large for f16");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_EQ(save(at::kFloat), "");
  ExpectMentions(save(at::kFloat), "exists already");
}

TEST(ImportTest, TextModelBecomesAVisionModelWithDrawnTables) {
  TemporaryFolder folder;
  const config::ModelConfig text = SmallConfig();
  const Weights weights = RandomWeights(text, at::kFloat);
  const config::ModelConfig vision = WithVision(text, 4096);
  SaveModelDirectory(vision, ReadWithVision(vision, Reader(weights), 7), folder / "m",
                     {.dtype = at::kFloat});
  const auto source = OpenModel(folder / "m");
  EXPECT_EQ(source->config().vision_vocab_size, 4096);
  for (const model::TensorSpec& spec : AllTensorSpecs(text))
    EXPECT_TRUE(at::equal(source->Read(spec), weights.at(spec.name)));
  const auto drawn = [&](const char* name) { return source->Read({name, {4096, 64}}); };
  for (const char* name : {"model.vision_embed_tokens.weight", "vision_head.weight"}) {
    EXPECT_NEAR(drawn(name).std().item<double>(), 0.02, 2e-4);
    EXPECT_NEAR(drawn(name).mean().item<double>(), 0, 2e-4);
  }
  EXPECT_FALSE(at::equal(drawn("model.vision_embed_tokens.weight"), drawn("vision_head.weight")));
  EXPECT_NE(ErrorOf([&] { WithVision(vision, 10); }), "");
}

}  // namespace
}  // namespace lwm::checkpoint
