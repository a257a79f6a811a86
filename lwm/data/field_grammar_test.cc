#include "lwm/data/field_grammar.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "lwm/base/error.h"
#include "lwm/data/documents.h"
#include "lwm/data/packing.h"
#include "lwm/data/python_random.h"
#include "lwm/io/safetensors.h"
#include "lwm/testing/byte_tokenizer.h"
#include "lwm/testing/llama_pieces.h"

namespace lwm::data {
namespace {

using testing_support::GoldenFolder;
using testing_support::LlamaTokenizer;

// A tensor of the golden files as numbers, whatever its type.
std::vector<double> Numbers(const io::SafetensorsFile& file, const std::string& name) {
  const auto bytes = file.bytes(name);
  size_t count = 1;
  for (const auto size : file.info(name).shape) count *= static_cast<size_t>(size);
  const size_t width = bytes.size() / count;
  std::vector<double> numbers;
  for (size_t i = 0; i < count; ++i) {
    int32_t value = 0;
    std::memcpy(&value, bytes.data() + i * width, width);
    const bool is_float = file.info(name).dtype == io::DType::kF32;
    numbers.push_back(is_float ? std::bit_cast<float>(value) : static_cast<float>(value));
  }
  return numbers;
}

template <class Value>
std::vector<double> Numbers(const std::vector<Value>& values) {
  return {values.begin(), values.end()};
}

std::vector<Example> GoldenExamples(const FieldGrammar& grammar) {
  const JsonlFile file(GoldenFolder("data_dsl") / "data.jsonl");
  const auto tokenizer = LlamaTokenizer();
  std::vector<Example> examples;
  for (int64_t line = 0; line < file.lines(); ++line)
    examples.push_back(line == 12 || line == 13
                           ? Example{}
                           : BuildExample(file.Parse(line),
                                          {.index = line, .where = file.where(line)}, *tokenizer,
                                          grammar));
  return examples;
}

void ExpectGoldenLines(const std::string& name, const FieldGrammar& grammar) {
  const io::SafetensorsFile golden(GoldenFolder("data_dsl") / ("lines_" + name + ".safetensors"));
  const auto examples = GoldenExamples(grammar);
  size_t lines = 0;
  for (size_t line = 0; line < examples.size(); ++line) {
    const std::string prefix = Cat("line", line, ".");
    if (!golden.contains(prefix + "tokens")) continue;
    const Example& example = examples[line];
    EXPECT_EQ(Numbers(example.token_n), Numbers(golden, prefix + "tokens")) << name << line;
    EXPECT_EQ(Numbers(example.vision_n), Numbers(golden, prefix + "vision_mask")) << name << line;
    EXPECT_EQ(Numbers(example.loss_weight_n), Numbers(golden, prefix + "loss_mask"))
        << name << line;
    ++lines;
  }
  EXPECT_EQ(lines, 13u);
}

TEST(FieldGrammarTest, LinesEqualThePublishedProcessor) {
  FieldGrammar grammar;
  ExpectGoldenLines("default", grammar);
  grammar.fields_index = 0;
  grammar.max_frames = 2;
  grammar.prepend_text = "Q: ";
  grammar.subfield_separator = " | ";
  ExpectGoldenLines("sub2", grammar);
  grammar = {};
  grammar.add_bos = grammar.add_eos = false;
  grammar.max_frames = 3;
  ExpectGoldenLines("bare3", grammar);
}

// Compares a packed row with row r of a published batch: tokens up to `compared`, all targets.
void ExpectGoldenRow(const Row& row, const io::SafetensorsFile& golden, int batch, size_t r,
                     size_t compared) {
  const size_t size = row.token_S.size();
  const auto part = [&](const std::string& name) {
    const auto all = Numbers(golden, Cat("batch", batch, ".", name));
    const auto begin = all.begin() + static_cast<int64_t>(r * size);
    return std::vector<double>(begin, begin + static_cast<int64_t>(size));
  };
  const auto token_S = part("input_tokens"), vision_S = part("input_vision_masks");
  const auto target_S = part("target_tokens"), target_vision_S = part("target_vision_masks");
  const std::string fixed = "loss_masks_fixed";
  const auto loss_S =
      part(golden.contains(Cat("batch", batch, ".", fixed)) ? fixed : std::string("loss_masks"));
  for (size_t i = 0; i < size; ++i) {
    if (i < compared) {
      ASSERT_EQ(row.token_S[i], token_S[i]) << "batch " << batch << " row " << r << " at " << i;
      ASSERT_EQ(row.vision_S[i], vision_S[i]);
    }
    ASSERT_EQ(row.target_S[i] != kNoTarget, loss_S[i] > 0) << batch << " " << r << " at " << i;
    if (loss_S[i] == 0) continue;
    ASSERT_EQ(row.target_S[i], target_S[i]);
    ASSERT_EQ(row.target_vision_S[i], target_vision_S[i]);
  }
}

void ExpectGoldenJoinedRows(const std::string& name, int64_t max_frames, int64_t row_tokens,
                            size_t rows_per_batch, size_t rows) {
  const io::SafetensorsFile golden(GoldenFolder("data_dsl") / (name + ".safetensors"));
  FieldGrammar grammar;
  grammar.max_frames = max_frames;
  PackingConfig config;
  config.policy = PackingPolicy::kConcatenate;
  config.row_tokens = row_tokens;
  Packer packer(config);
  size_t r = 0;
  for (const Example& example : GoldenExamples(grammar)) {
    packer.Add(example);
    for (; !packer.wants_more() && r < rows; ++r)
      ExpectGoldenRow(packer.NextRow(), golden, static_cast<int>(r / rows_per_batch),
                      r % rows_per_batch, static_cast<size_t>(row_tokens));
  }
  EXPECT_EQ(r, rows);
}

TEST(FieldGrammarTest, JoinedRowsEqualThePublishedBatches) {
  ExpectGoldenJoinedRows("batches_no_pad", 0, 500, 2, 10);
  ExpectGoldenJoinedRows("batches_no_pad_small", 1, 64, 3, 27);
}

TEST(FieldGrammarTest, PaddedRowsEqualThePublishedBatches) {
  const io::SafetensorsFile golden(GoldenFolder("data_dsl") / "batches_pad.safetensors");
  PackingConfig config;
  config.policy = PackingPolicy::kPad;
  config.row_tokens = 640;
  config.pad_token = 1;
  Packer packer(config);
  size_t r = 0;
  for (const Example& example : GoldenExamples({})) {
    packer.Add(example);
    if (packer.wants_more()) continue;
    ExpectGoldenRow(packer.NextRow(), golden, static_cast<int>(r / 2), r % 2,
                    std::min<size_t>(640, example.token_n.size() - 1));
    ++r;
  }
  EXPECT_EQ(r, 13u);
}

TEST(FieldGrammarTest, BosBeginsExamplesWhereTheTokenizersTextsDo) {
  class WithoutLeadingBos : public testing_support::ByteTokenizer {
   public:
    bool begins_with_bos() const override { return false; }
  };
  const auto text_of = [](const Json& object, const Tokenizer& tokenizer) {
    return testing_support::BytesAsText(BuildExample(object, {}, tokenizer, {}));
  };
  const WithoutLeadingBos without;
  ASSERT_EQ(without.bos_id(), 1);
  EXPECT_EQ(text_of({{"text", "ab"}}, testing_support::ByteTokenizer()), "^ab$");
  EXPECT_EQ(text_of({{"text", "ab"}}, without), "ab$");
  EXPECT_EQ(text_of({{"text", "ab"}, {"fields", "<|bos|>,text"}}, without), "^ab$");  // asked for
}

TEST(FieldGrammarTest, ChoiceEqualsCPython) {
  // [random.Random(i).choice(range(n)) for i in range(16)]
  const std::vector<std::pair<uint32_t, std::vector<uint32_t>>> expected = {
      {2, {1, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 0}},
      {3, {1, 0, 0, 0, 0, 2, 2, 1, 0, 1, 2, 1, 1, 1, 0, 0}},
      {5, {3, 1, 0, 1, 1, 4, 4, 2, 1, 3, 4, 3, 3, 2, 0, 1}}};
  for (const auto& [size, choices] : expected)
    for (uint64_t seed = 0; seed < choices.size(); ++seed)
      EXPECT_EQ(PythonRandom(seed).ChoiceIndex(size), choices[seed]) << size << " " << seed;
  // random.Random(2**40 + 7).getrandbits(32), and its 700th call
  PythonRandom random((uint64_t{1} << 40) + 7);
  EXPECT_EQ(random.GetRandBits(32), 2635837658U);
  for (int i = 0; i < 698; ++i) random.GetRandBits(32);
  EXPECT_EQ(random.GetRandBits(32), 749572831U);
}

TEST(FieldGrammarTest, FramesAreThinnedAsLinspaceDoes) {
  EXPECT_EQ(ThinFrames(7, 3), (std::vector<int64_t>{0, 3, 6}));
  EXPECT_EQ(ThinFrames(11, 4), (std::vector<int64_t>{0, 3, 6, 10}));
  EXPECT_EQ(ThinFrames(5, 1), (std::vector<int64_t>{0}));
  EXPECT_EQ(ThinFrames(30, 8), (std::vector<int64_t>{0, 4, 8, 12, 16, 20, 24, 29}));
  EXPECT_EQ(ThinFrames(1000, 7), (std::vector<int64_t>{0, 166, 333, 499, 666, 832, 999}));
  EXPECT_EQ(ThinFrames(3, 3), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_TRUE(ThinFrames(0, 0).empty());
}

std::string MessageOf(const std::string& line) {
  try {
    BuildExample(Json::parse(line), {.where = "f.jsonl:1"}, *LlamaTokenizer(), {});
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    return error.what();
  }
}

TEST(FieldGrammarTest, ErrorsNameFileLineAndField) {
  EXPECT_EQ(MessageOf(R"({"txt": "a"})"),
            "f.jsonl:1: field \"text\" is missing, and so are \"fields\", \"chat\" and "
            "\"messages\"; the line has txt");
  EXPECT_EQ(MessageOf(R"({"fields": "a,[b]", "a": "x"})"), "f.jsonl:1: field \"b\" is missing");
  EXPECT_NE(MessageOf(R"({"text": 3})").find("field \"text\" has the wrong type: 3"),
            std::string::npos);
  EXPECT_NE(MessageOf(R"({"fields": []})").find("field \"fields\""), std::string::npos);
  EXPECT_NE(MessageOf(R"({"fields": [3]})").find("field \"fields\""), std::string::npos);
  EXPECT_NE(MessageOf(R"({"fields": "vision"})").find("\"vision\" is missing"), std::string::npos);
  EXPECT_NE(MessageOf(R"({"fields": "vision", "vision": "x"})").find("no list"), std::string::npos);
  EXPECT_NE(MessageOf(R"({"fields": "vision", "vision": []})").find("no frame"), std::string::npos);
  EXPECT_NE(MessageOf(R"({"fields": "vision", "vision": [1, 2]})").find("has 2 codes, fewer than"),
            std::string::npos);
  Json line = {{"fields", "vision"}, {"vision", std::vector<int>(256, 5)}};
  line["vision"][9] = 8192;
  EXPECT_NE(MessageOf(line.dump()).find("has 8192 at index 9"), std::string::npos);
  line["vision"][9] = -1;
  EXPECT_NE(MessageOf(line.dump()).find("has -1 at index 9"), std::string::npos);
  line["vision"][9] = 1.5;
  EXPECT_NE(MessageOf(line.dump()).find("has 1.5 at index 9"), std::string::npos);
  line["vision"][9] = 18446744073709551615U;
  EXPECT_NE(MessageOf(line.dump()).find("at index 9"), std::string::npos);
}

}  // namespace
}  // namespace lwm::data
