// lwm convert and inspect: quantised directories, byte-level vocabularies through GGUF, and what is
// carried along.

#include <gtest/gtest.h>

#include <filesystem>

#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/data/byte_bpe_json.h"
#include "lwm/io/safetensors.h"
#include "lwm/testing/golden_folder.h"
#include "tests/cli/run_program.h"

namespace lwm {
namespace {
namespace fs = std::filesystem;

using testing_support::GoldenFolder;
using testing_support::RunLwm;
using testing_support::TemporaryFolder;

// A tokenizer.json of the 256 bytes, two merges and two special tokens, cut as SmolLM2 does.
std::string SmallByteBpe() {
  data::ByteBpeVocabulary vocabulary;
  vocabulary.piece_V = {"<|endoftext|>", "<|im_start|>"};
  const auto add = [&](unsigned letter) {
    std::string piece;
    if (letter >= 0x80) piece += static_cast<char>(0xC0 | letter >> 6);
    piece += static_cast<char>(letter < 0x80 ? letter : 0x80 | (letter & 0x3F));
    vocabulary.piece_V.push_back(piece);
  };
  // GPT-2's letters: printable Latin-1 stands for itself, the rest for U+0100 and on.
  for (unsigned letter = 0x21; letter <= 0x7E; ++letter) add(letter);
  for (unsigned letter = 0xA1; letter <= 0xFF; ++letter)
    if (letter != 0xAD) add(letter);
  for (unsigned letter = 0x100; letter <= 0x143; ++letter) add(letter);
  for (const char* piece : {"th", "the"}) vocabulary.piece_V.push_back(piece);
  vocabulary.is_special_V.assign(vocabulary.piece_V.size(), 0);
  vocabulary.is_special_V[0] = vocabulary.is_special_V[1] = 1;
  vocabulary.merges = {{"t", "h"}, {"th", "e"}};
  vocabulary.patterns = {R"(\p{N})", data::kGpt2Pattern};
  return data::ByteBpeToJson(vocabulary);
}

class ConvertCliTest : public testing::Test {
 protected:
  ConvertCliTest() {
    const std::string from = GoldenFolder("tiny_stories").string();
    Convert(from + "/stories260K.bin", "model", "--tokenizer " + from + "/tok512.bin");
  }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  void Convert(const std::string& from, const std::string& name, const std::string& flags = "") {
    const auto result = RunLwm("convert --from " + from + " --to " + Path(name) + " " + flags);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  // The logits of a few tokens, as stored.
  std::string Logits(const std::string& name) {
    const int32_t ids[] = {1, 403, 407, 261, 378, 400};
    io::SafetensorsWriter writer(folder_ / "in", {{"input_ids", io::DType::kI32, {1, 6}}});
    writer.Write("input_ids", std::as_bytes(std::span(ids)));
    writer.Finish();
    const auto result = RunLwm("logits --model " + Path(name) + " --input " + Path("in") +
                               " --output " + Path("out") + " --dtype f32");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return ReadFile(folder_ / "out");
  }
  Json Inspect(const std::string& name) {
    const auto result = RunLwm("inspect --json " + Path(name));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return Json::parse(result.out);
  }

  TemporaryFolder folder_;
};

TEST_F(ConvertCliTest, QuantisedDirectoryGivesTheLogitsOfTheQuantisedGguf) {
  for (const std::string type : {"q8_0", "q4_0"}) {
    Convert(Path("model"), type, "--quantize " + type);
    Convert(Path("model"), type + ".gguf", "--format gguf --quantize " + type);
    const std::string logits = Logits(type);
    EXPECT_TRUE(logits == Logits(type + ".gguf"));
    EXPECT_FALSE(logits == Logits("model"));
    EXPECT_LT(fs::file_size(folder_ / type / "model.safetensors"),
              fs::file_size(folder_ / "model/model.safetensors") * (type == "q8_0" ? 4 : 3) / 10);
    Convert(Path(type), type + "-back.gguf", "--format gguf --quantize " + type);
    EXPECT_TRUE(logits == Logits(type + "-back.gguf")) << "quantised again, the blocks change";
  }
}

TEST_F(ConvertCliTest, InspectShowsHowWeightsAreStored) {
  Convert(Path("model"), "q8", "--quantize q8_0");
  const Json whole = Inspect("model"), blocks = Inspect("q8");
  EXPECT_EQ(blocks["numbers"], whole["numbers"]);
  EXPECT_LT(blocks["bytes"].get<double>(), 0.4 * whole["bytes"].get<double>());
  int quantised = 0;
  for (const Json& tensor : blocks["tensors"]) quantised += tensor["dtype"] == "Q8_0";
  EXPECT_GT(quantised, 10);
  EXPECT_EQ(blocks["config"]["quantization_config"]["blocks"], "Q8_0");
}

TEST_F(ConvertCliTest, QuantisingTheJaxStreamIsRefused) {
  const auto result = RunLwm("convert --from " + Path("model") + " --to " + Path("x") +
                             " --format lwm-jax --quantize q8_0");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("--quantize"), std::string::npos) << result.err;
}

TEST_F(ConvertCliTest, ByteLevelVocabularyGoesThroughGgufAndBack) {
  fs::remove(folder_ / "model/tokenizer.model");
  WriteFileAtomically(folder_ / "model/tokenizer.json", SmallByteBpe());
  WriteFileAtomically(folder_ / "model/tokenizer_config.json",
                      R"({"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"})");
  Convert(Path("model"), "m.gguf", "--format gguf");
  Convert(Path("m.gguf"), "back");
  Convert(Path("back"), "again.gguf", "--format gguf");
  const std::string texts = "\"the 12 th\xC3\xA9 \\n\\n x\"\n\"\"\n\"<|im_start|>\"\n";
  const auto expected = RunLwm("tokenize --tokenizer " + Path("model"), texts);
  EXPECT_EQ(expected.exit_code, 0) << expected.err;
  for (const char* name : {"m.gguf", "back", "again.gguf"}) {
    EXPECT_EQ(RunLwm("tokenize --tokenizer " + Path(name), texts).out, expected.out) << name;
    const auto ids = RunLwm("tokenize --decode --tokenizer " + Path(name), expected.out);
    EXPECT_EQ(ids.out, texts) << name;
  }
  EXPECT_EQ(Inspect("m.gguf")["tokenizer"]["kind"], "gpt2");
}

TEST_F(ConvertCliTest, InspectShowsNamesOfAnyBytes) {
  WriteFileAtomically(folder_ / "odd",
                      "\x81\xa3"
                      "a\x1b\xff\x05");  // msgpack: a map of one number
  const auto table = RunLwm("inspect " + Path("odd"));
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_NE(table.out.find("a?\xff"), std::string::npos) << table.out;
  EXPECT_EQ(Inspect("odd")["tensors"][0]["name"], "a\x1b\xEF\xBF\xBD");
}

TEST_F(ConvertCliTest, WhatBelongsToTheModelIsCarriedAlong) {
  fs::create_directories(folder_ / "model/vqgan");
  WriteFileAtomically(folder_ / "model/vqgan/config.json", "{}");
  WriteFileAtomically(folder_ / "model/generation_config.json", R"({"eos_token_id": 2})");
  Convert(Path("model"), "hf", "--dtype bf16");
  Convert(Path("model"), "jax", "--format lwm-jax");
  for (const char* name : {"hf", "jax"})
    for (const char* file : {"tokenizer.model", "generation_config.json", "vqgan/config.json"})
      EXPECT_EQ(ReadFile(folder_ / name / file), ReadFile(folder_ / "model" / file))
          << name << file;
}

// A SentencePiece folder with added tokens, a template, two ids that end a text and defaults of
// generation keeps them all in a folder, in GGUF, and in a folder made of that.
TEST_F(ConvertCliTest, TokensTemplateAndStopsGoThroughEveryFormat) {
  const fs::path model = folder_ / "model";
  fs::remove(model / "tokenizer.json");
  WriteFileAtomically(model / "added_tokens.json", R"({"<tool>": 512, "<|im_end|>": 513})");
  WriteFileAtomically(model / "tokenizer_config.json",
                      R"({"legacy": false, "add_bos_token": false, "eos_token": "<|im_end|>",
                          "chat_template": "{{ x }}", "padding_side": "left"})");
  WriteFileAtomically(model / "generation_config.json",
                      R"({"eos_token_id": [7, 8, 9], "temperature": 0.6})");
  Convert(Path("model"), "hf");
  Convert(Path("hf"), "m.gguf", "--format gguf");
  Convert(Path("m.gguf"), "back");
  const std::string texts = "\"Once<tool>upon <|im_end|>\"\n\"  a time\"\n";
  const auto expected = RunLwm("tokenize --tokenizer " + Path("model"), texts);
  EXPECT_NE(expected.out.find("512"), std::string::npos) << expected.err;
  for (const char* name : {"hf", "m.gguf", "back"})
    EXPECT_EQ(RunLwm("tokenize --tokenizer " + Path(name), texts).out, expected.out) << name;
  for (const char* name : {"hf", "back"}) {
    const fs::path folder = folder_ / name;
    const Json config = ReadJsonFile(folder / "tokenizer_config.json");
    EXPECT_EQ(config["chat_template"], "{{ x }}") << name;
    EXPECT_EQ(config["padding_side"], "left") << name;
    EXPECT_EQ(config["added_tokens_decoder"]["513"]["content"], "<|im_end|>") << name;
    EXPECT_EQ(config["add_bos_token"], false) << name;
    const Json generation = ReadJsonFile(folder / "generation_config.json");
    EXPECT_EQ(generation["temperature"], 0.6) << name;
    EXPECT_EQ(generation["eos_token_id"], Json::parse("[2, 7, 8, 9]")) << name;
    EXPECT_EQ(ReadJsonFile(folder / "config.json")["eos_token_id"], generation["eos_token_id"]);
  }
}

}  // namespace
}  // namespace lwm
