// Hundreds of damaged variants of every format: cut, bytes changed, lengths inflated, lies about
// types and shapes. Each is refused in one line or read; never a crash, never much memory.
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/io/gguf_source.h"
#include "lwm/io/gguf_writer.h"
#include "lwm/io/msgpack_stream.h"
#include "lwm/io/numpy_pickle_source.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/io/safetensors.h"
#include "lwm/io/safetensors_source.h"
#include "lwm/io/torch_source.h"
#include "lwm/testing/damage.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/read_stored.h"
#include "lwm/testing/source_values.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

using testing_support::Bytes;
using testing_support::DamagedVariants;
using testing_support::GoldenFolder;
using testing_support::ReadStored;
using testing_support::TemporaryFolder;
using testing_support::WithBytes;

void Overwrite(const fs::path& file, std::string_view content) {
  std::ofstream(file, std::ios::binary) << content;
}

// Reads all of `opened`, a file of which is `damaged`.
testing_support::ParseBytes AsFile(const fs::path& damaged, const fs::path& opened) {
  return testing_support::AsFile(
      damaged, [=] { testing_support::ReadEverything(*OpenTensorSource(opened)); });
}

// ---- safetensors ----

void ParseSafetensorsBytes(std::span<const std::byte> bytes) {
  ReadStored(ParseSafetensorsTensors(bytes, "x"));
}

std::string SafetensorsContent(const std::string& prefix = "") {
  const TemporaryFolder folder;
  const std::vector<TensorInfo> infos = {{prefix + "wide", DType::kI64, {3}},
                                         {prefix + "matrix", DType::kF32, {2, 3}},
                                         {prefix + "half", DType::kBF16, {4}},
                                         {prefix + "blocks", DType::kU8, {2, 34}}};
  SafetensorsWriter writer(folder / "a", infos, {{kSafetensorsBlocks, "Q8_0"}});
  for (const TensorInfo& info : infos)
    writer.Write(info.name, std::vector<std::byte>(TensorBytes(info), std::byte{1}));
  writer.Finish();
  return ReadFile(folder / "a");
}

std::string WithHeader(const std::string& whole, const Json& header) {
  uint64_t length = 0;
  std::memcpy(&length, whole.data(), sizeof(length));
  const std::string text = header.dump();
  return Bytes(static_cast<uint64_t>(text.size())) + text + whole.substr(8 + length);
}

void TryEveryLie(const Json& header, Json& number, DamagedVariants& variants, Json& root) {
  const Json truth = number;
  const auto n = truth.get<uint64_t>();
  for (const Json& lie : {Json(n + 1), Json(n * 2 + 7), Json(n + 34), Json(uint64_t{1} << 31),
                          Json(uint64_t{1} << 32), Json(uint64_t{1} << 62), Json(uint64_t{1} << 63),
                          Json(~uint64_t{0}), Json(-1), Json(1.5), Json("3"), Json(),
                          Json::array({1}), Json(1e300)}) {
    number = lie;
    variants.ExpectRefused(WithHeader(variants.whole(), root));
  }
  number = truth;
  EXPECT_EQ(header, root);
}

TEST(DamagedFilesTest, Safetensors) {
  DamagedVariants variants(SafetensorsContent(), ParseSafetensorsBytes);
  variants.ExpectCutsRefused(variants.whole().size());
  variants.ExpectRefused(variants.whole() + "x");
  variants.ChangeEveryByte();
  variants.InflateEverywhere(3);
  const int generic = variants.refused();
  uint64_t length = 0;
  std::memcpy(&length, variants.whole().data(), sizeof(length));
  const Json header = Json::parse(variants.whole().substr(8, length));
  Json lying = header;
  for (const char* name : {"wide", "matrix", "half", "blocks"}) {
    for (const char* list : {"shape", "data_offsets"})
      for (Json& number : lying[name][list]) TryEveryLie(header, number, variants, lying);
    const auto width = DTypeSize(*DTypeFromSafetensors(header[name]["dtype"].get<std::string>()));
    for (const char* dtype : {"F64", "I16", "I8", "F99", "", "f32", "Q8_0"}) {
      const auto lie = DTypeFromSafetensors(dtype);
      if (lie && DTypeSize(*lie) == width) continue;  // as good a file as any
      lying[name]["dtype"] = dtype;
      variants.ExpectRefused(WithHeader(variants.whole(), lying));
      lying = header;
    }
    lying[name].erase("shape");
    variants.ExpectRefused(WithHeader(variants.whole(), lying), name);
    lying = header;
  }
  for (const char* blocks : {"Q4_0", "Q9_0", "F32", ""}) {
    lying["__metadata__"][kSafetensorsBlocks] = blocks;
    variants.ExpectRefused(WithHeader(variants.whole(), lying), "blocks");
  }
  EXPECT_GE(variants.refused() - generic, 200);  // lies alone
  variants.ExpectEnoughAndLittleMemory();
}

// ---- shards ----

// Damages the index, then the shard that it names.
void DamageShards(const fs::path& index, const fs::path& shard) {
  const std::string map = ReadFile(index), content = ReadFile(shard);
  DamagedVariants indexes(map, AsFile(index, index));
  indexes.ExpectCutsRefused(map.size());
  indexes.ChangeEveryByte(3);
  indexes.InflateEverywhere(37);
  for (const char* lie : {"{}", "[]", R"({"weight_map":7})", R"({"weight_map":{"a":7}})",
                          R"({"weight_map":{"a":"absent.bin"}})",
                          R"({"weight_map":{"a":"../absent.bin"}})", R"({"weight_map":{"a":".."}})",
                          R"({"weight_map":{"a":""}})", R"({"weight_map":{"a":"/etc/passwd"}})"})
    indexes.ExpectRefused(lie);
  indexes.ExpectRefused(Json{{"weight_map", {{"absent", shard.filename()}}}}.dump(), "absent");
  indexes.ExpectEnoughAndLittleMemory();
  Overwrite(index, map);
  DamagedVariants shards(content, AsFile(shard, index));
  shards.ExpectCutsRefused(content.size(), std::max<size_t>(1, content.size() / 150));
  shards.ChangeEveryByte(std::max<size_t>(1, content.size() / 150));
  shards.ExpectEnoughAndLittleMemory();
  fs::remove(shard);
  EXPECT_ERROR(OpenTensorSource(index), kNotFound);
}

TEST(DamagedFilesTest, SafetensorsShards) {
  const TemporaryFolder folder;
  Overwrite(folder / "a.safetensors", SafetensorsContent());
  Overwrite(folder / "b.safetensors", SafetensorsContent("other."));
  Json map;
  for (const char* name : {"wide", "matrix", "half", "blocks"}) {
    map[name] = "a.safetensors";
    map[std::string("other.") + name] = "b.safetensors";
  }
  const fs::path index = folder / "model.safetensors.index.json";
  Overwrite(index, Json{{"metadata", {{"total_size", 280}}}, {"weight_map", map}}.dump());
  DamageShards(index, folder / "b.safetensors");
}

// ---- PyTorch ----

std::string TorchContent() { return ReadFile(GoldenFolder("torch_zip") / "state.bin"); }

// The archive with no checksums, as torch.save writes when told so: damage reaches the pickle.
std::string TorchContentWithoutChecksums() {
  std::string content = TorchContent();
  for (size_t at = 0; (at = content.find("PK\x01\x02", at)) != std::string::npos; at += 4)
    content.replace(at + 16, 4, 4, '\0');
  return content;
}

void ParseTorchBytes(std::span<const std::byte> bytes) { ReadStored(ParseTorchFile(bytes, "x")); }

TEST(DamagedFilesTest, TorchArchive) {
  DamagedVariants variants(TorchContentWithoutChecksums(), ParseTorchBytes);
  variants.ExpectCutsRefused(variants.whole().size());
  variants.ChangeEveryByte();
  variants.InflateEverywhere(3);
  for (const auto& [type, wider] : {std::pair("ShortStorage", "FloatStorage"),
                                    {"HalfStorage", "LongStorage"},
                                    {"CharStorage", "LongStorage"},
                                    {"ByteStorage", "LongStorage"},
                                    {"BoolStorage", "LongStorage"},
                                    {"FloatStorage", "FlootStorage"}})
    variants.ExpectRefused(
        WithBytes(variants.whole(), "torch\n", 0, "")
            .replace(variants.whole().find(type), std::string(wider).size(), wider));
  variants.ExpectEnoughAndLittleMemory();
}

TEST(DamagedFilesTest, TorchArchiveWithChecksums) {
  const std::string content = TorchContent();
  DamagedVariants variants(content, ParseTorchBytes);
  const size_t begin = content.find("\x80\x02"), end = content.find("PK\x07\x08", begin);
  ASSERT_LT(end, content.size());
  for (size_t i = begin; i < end; ++i) {
    std::string damaged = content;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    variants.ExpectRefused(damaged, "checksum");
  }
  variants.ExpectEnoughAndLittleMemory();
}

TEST(DamagedFilesTest, TorchShards) {
  const TemporaryFolder folder;
  Overwrite(folder / "a.bin", TorchContent());
  const TorchSource source(folder / "a.bin");
  Json map;
  for (const TensorInfo& info : source.infos()) map[info.name] = "a.bin";
  const fs::path index = folder / "pytorch_model.bin.index.json";
  Overwrite(index, Json{{"weight_map", map}}.dump());
  DamageShards(index, folder / "a.bin");
}

// ---- JAX ----

void ParseMsgpackBytes(std::span<const std::byte> bytes) {
  for (const MsgpackTensor& tensor : ParseMsgpackCheckpoint(bytes, "x"))
    for (const auto chunk : tensor.chunks) HashHex(chunk);  // touches every byte
}

// Each name of a type in turn replaced by one of equal length and other width. An empty array has
// no bytes to disagree with.
void LieAboutNumpyTypes(DamagedVariants& variants) {
  int lies = 0, refused = 0;
  for (const auto& [type, lie] : {std::pair("float32", "float64"),
                                  {"float64", "float32"},
                                  {"int32", "int64"},
                                  {"int64", "int32"},
                                  {"int32", "uint8"}})
    for (size_t at = 0; (at = variants.whole().find(type, at)) != std::string::npos; ++at, ++lies) {
      std::string lying = variants.whole();
      refused += !variants.Try(lying.replace(at, std::strlen(lie), lie)).empty();
    }
  EXPECT_GE(lies, 5);
  EXPECT_GE(refused, lies - 2);
}

TEST(DamagedFilesTest, JaxStream) {
  for (const char* name : {"zoo_streaming", "zoo_streaming_chunked"}) {
    const fs::path file = GoldenFolder("jax_msgpack") / name;
    DamagedVariants variants(ReadFile(file), ParseMsgpackBytes);
    const auto records = static_cast<int>(OpenTensorSource(file)->infos().size());
    int accepted = 0;  // at the end of a record nothing says that more follow
    for (size_t size = 1; size < variants.whole().size(); ++size)
      accepted += variants.Try(std::string_view(variants.whole()).substr(0, size)).empty();
    EXPECT_LE(accepted, records + 3);  // and a few records of None
    variants.ChangeEveryByte();
    variants.InflateEverywhere(3);
    LieAboutNumpyTypes(variants);
    variants.ExpectEnoughAndLittleMemory();
  }
}

TEST(DamagedFilesTest, FlaxParams) {
  DamagedVariants variants(ReadFile(GoldenFolder("jax_msgpack") / "zoo_flax_params"),
                           ParseMsgpackBytes);
  variants.ExpectCutsRefused(variants.whole().size());
  variants.ChangeEveryByte();
  variants.InflateEverywhere(3);
  LieAboutNumpyTypes(variants);
  variants.ExpectEnoughAndLittleMemory();
}

// ---- GGUF ----

void ParseGgufBytes(std::span<const std::byte> bytes) {
  const GgufFile file = ParseGguf(bytes, "x");
  std::vector<StoredTensor> tensors;
  for (const GgufTensor& tensor : file.tensors) {
    tensors.push_back(ContiguousTensor(tensor.info, tensor.bytes));
    const GgufTypeInfo type = *FindGgufType(static_cast<uint32_t>(tensor.type));
    if (type.block > 1) tensors.back().blocks = type;
  }
  ReadStored(tensors);
  for (const char* key : {"count", "pi", "words", "scores"}) {
    if (const auto found = file.metadata.values.find(key); found == file.metadata.values.end())
      continue;
    if (std::string(key) == "count") file.metadata.Integer(key);
    if (std::string(key) == "pi") file.metadata.Number(key);
    if (std::string(key) == "words") file.metadata.Texts(key);
    if (std::string(key) == "scores") file.metadata.Numbers(key);
  }
}

std::string GgufContent() {
  const TemporaryFolder folder;
  GgufKeys keys;
  keys.AddText("general.architecture", "llama");
  keys.AddUnsigned("count", 7);
  keys.AddFloat("pi", 3.25f);
  keys.AddTexts("words", std::vector<std::string>{"a", "", "ccc"});
  keys.AddFloats("scores", std::vector<float>{1, -2.5f});
  const std::vector<GgufWriter::Tensor> tensors = {{"norm", {5}, GgufType::kF32},
                                                   {"blocks", {2, 32}, GgufType::kQ8_0},
                                                   {"nibbles", {1, 64}, GgufType::kQ4_0},
                                                   {"last", {16}, GgufType::kF16}};
  GgufWriter writer(folder / "a.gguf", keys, tensors);
  for (const auto& tensor : tensors)
    writer.Write(tensor.name, std::vector<std::byte>(GgufBytes(tensor), std::byte{1}));
  writer.Finish();
  return ReadFile(folder / "a.gguf");
}

TEST(DamagedFilesTest, Gguf) {
  DamagedVariants variants(GgufContent(), ParseGgufBytes);
  variants.ExpectCutsRefused(variants.whole().size());
  variants.ChangeEveryByte();
  variants.InflateEverywhere(3);
  for (const char* name : {"norm", "blocks", "nibbles", "last"}) {
    const bool matrix = std::string_view(name) == "blocks" || std::string_view(name) == "nibbles";
    for (const uint64_t size : {uint64_t{1} << 20, uint64_t{1} << 40, uint64_t{1} << 60,
                                uint64_t{1} << 63, ~uint64_t{0}, uint64_t{4097}})
      for (size_t dim = 0; dim < 1 + size_t{matrix}; ++dim)
        variants.ExpectRefused(WithBytes(variants.whole(), name, 4 + 8 * dim, Bytes(size)), name);
    const size_t type_at = matrix ? 20 : 12;
    for (uint32_t type = 4; type < 64; ++type)
      if (!FindGgufType(type))
        variants.ExpectRefused(WithBytes(variants.whole(), name, type_at, Bytes(type)),
                               Cat("type ", GgufTypeName(type)));
    for (const uint64_t offset : {uint64_t{4096}, uint64_t{1} << 33, ~uint64_t{0}})
      variants.ExpectRefused(WithBytes(variants.whole(), name, type_at + 4, Bytes(offset)), name);
  }
  variants.ExpectEnoughAndLittleMemory();
}

// ---- llama2.c ----

// Sizes of a tiny model and as many numbers as they say.
std::string Llama2cContent() {
  std::string content;
  for (const int32_t size : {8, 16, 1, 2, 1, 16, 4}) content += Bytes(size);
  constexpr int kNumbers = 16 * 8 + 8 + 64 + 32 + 32 + 64 + 8 + 3 * 128 + 8 + 2 * 8;
  for (int i = 0; i < kNumbers; ++i) content += Bytes(0.25f);
  return content;
}

TEST(DamagedFilesTest, Llama2c) {
  const TemporaryFolder folder;
  DamagedVariants variants(Llama2cContent(), AsFile(folder / "m.bin", folder / "m.bin"));
  variants.ExpectCutsRefused(variants.whole().size(), 7);
  variants.ExpectRefused(variants.whole() + "more", "m.bin");
  for (size_t field = 0; field < 7; ++field) {
    for (const int32_t lie : {0,
                              -1,
                              3,
                              5,
                              7,
                              9,
                              64,
                              1000,
                              1 << 20,
                              1 << 24,
                              (1 << 24) + 1,
                              1 << 30,
                              INT32_MAX,
                              INT32_MIN,
                              -1000,
                              0x01000000,
                              0x10000,
                              255,
                              12345,
                              77}) {
      std::string damaged = variants.whole();
      variants.ExpectRefused(damaged.replace(4 * field, 4, Bytes(lie)), "m.bin");
    }
  }
  variants.ChangeEveryByte(31);
  variants.InflateEverywhere(211);
  variants.ExpectEnoughAndLittleMemory();
}

// ---- pickle ----

void ParsePickleBytes(std::span<const std::byte> bytes) {
  ReadStored(ParseNumpyPickle(bytes, "x").tensors);
}

TEST(DamagedFilesTest, NumpyPickle) {
  for (const char* form :
       {"frozen_dict_protocol4", "jax_arrays_protocol4", "numpy2_names_protocol2",
        "numpy_protocol2", "numpy_protocol3", "numpy_protocol4", "numpy_protocol5"}) {
    SCOPED_TRACE(form);
    DamagedVariants variants(ReadFile(GoldenFolder("numpy_pickles") / form), ParsePickleBytes);
    variants.ExpectCutsRefused(variants.whole().size());
    variants.ChangeEveryByte();
    variants.InflateEverywhere(2);
    for (const auto& [type, wider] : {std::pair("f4", "f8"), {"f4", "x4"}, {"f4", "c8"}})
      variants.ExpectRefused(
          std::string(variants.whole()).replace(variants.whole().find(type), 2, wider));
    variants.ExpectEnoughAndLittleMemory();
  }
}

}  // namespace
}  // namespace lwm::io
