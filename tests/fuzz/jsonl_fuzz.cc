// A JSONL file or JSON array of any bytes, packed by gzip or not, gives examples or Errors that
// name a line; the examples pack into rows whose loss weights sum to one.
#include <cmath>
#include <string>

#include "lwm/base/error.h"
#include "lwm/data/documents.h"
#include "lwm/data/field_grammar.h"
#include "lwm/data/packing.h"
#include "lwm/data/tokenizer.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/testing/byte_pieces.h"
#include "tests/fuzz/target.h"

namespace {

using lwm::data::Example;
using lwm::data::Row;

constexpr uint64_t kDrawKey = 7;
using lwm::fuzz::Check;

// The 256 bytes, some pairs of letters, the special tokens.
std::unique_ptr<lwm::data::Tokenizer> MakeTokenizer() {
  return lwm::data::MakePieceTokenizer(
      lwm::testing_support::ByteAndOtherPieces({"th", "▁a", "ab", "▁▁", "▁", "a", "b", "t", "h"}),
      "fuzz");
}

void CheckRow(const Row& row) {
  double sum = 0;
  for (size_t i = 0; i < row.token_S.size(); ++i) {
    Check(std::isfinite(row.weight_S[i]) && row.weight_S[i] >= 0);
    Check((row.weight_S[i] > 0) == (row.target_S[i] != lwm::kNoTarget));
    Check(row.begin_S[i] >= 0 && static_cast<size_t>(row.begin_S[i]) <= i);
    sum += static_cast<double>(row.weight_S[i]);
  }
  // An example's text targets sum to one and so do its vision targets.
  const auto examples = static_cast<double>(row.examples);
  Check(sum >= examples - 1e-3 && sum <= 2 * examples + 1e-3);
}

void PackLines(const lwm::data::JsonlFile& file, const lwm::data::Tokenizer& tokenizer) {
  lwm::data::FieldGrammar grammar;
  grammar.tokens_per_frame = 4;
  grammar.max_frames = 3;
  grammar.drop_text = 0.5;
  grammar.order_by_visit = true;
  grammar.whole_frames = file.lines() % 2 == 1;
  lwm::data::PackingConfig config;
  config.row_tokens = 16;
  config.buffer_tokens = 0;
  lwm::data::Packer packer(config);
  for (int64_t line = 0; line < file.lines(); ++line) {
    try {
      packer.Add(lwm::data::BuildExample(file.Parse(line), {line, file.where(line), "", kDrawKey},
                                         tokenizer, grammar));
    } catch (const lwm::Error& error) {
      Check(error.code() == lwm::ErrorCode::kCorruptData);
      Check(std::string(error.what()).find(file.where(line)) != std::string::npos);
    }
    while (!packer.wants_more()) CheckRow(packer.NextRow());
  }
  while (const auto row = packer.Flush()) CheckRow(*row);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizer = MakeTokenizer();
  const lwm::fuzz::InputFile file(data, size);
  try {
    PackLines(lwm::data::JsonlFile(file.path()), *tokenizer);
  } catch (const lwm::Error& error) {  // no text, a cut array, a Git LFS pointer
    Check(lwm::fuzz::IsRefusal(error));
  }
  return 0;
}
