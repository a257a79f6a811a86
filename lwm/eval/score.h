#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/infer/token_batch.h"
#include "lwm/model/decoder.h"

namespace lwm::eval {

// Sum of -log p (natural logarithm) over some predicted tokens.
struct Tally {
  int64_t tokens = 0;
  double nll = 0;

  double Loss() const { return tokens > 0 ? nll / static_cast<double>(tokens) : 0; }
  double Perplexity() const;
};

// The tokens predicted from positions [begin, end) of their segment.
struct PositionBucket {
  int64_t begin = 0, end = 0;
  Tally tally;
};

// How well a model predicts tokens: all, by modality of the target, and by how much the model had
// read. Buckets end at 1K, 2K, 4K, ... tokens.
struct Score {
  Tally all, text, vision;
  std::vector<PositionBucket> buckets;
};
Json ScoreToJson(const Score& score);

// A model and the ranks that share each row; all ranks call with the same rows and get the same
// score.
struct Scorer {
  const config::ModelConfig& config;
  const model::WeightReader& weights;
  model::DecoderOptions options;
  dist::Communicator* sp = nullptr;  // nullptr = one rank
};

// Called after each row with the tokens scored so far and the number that there will be.
using OnScored = std::function<void(int64_t done, int64_t all)>;

// Scores every target of the batch, row by row; a batch without targets predicts each next token of
// a segment. Never holds logits of more than a slice of tokens.
Score ScoreBatch(const Scorer& scorer, const infer::TokenBatch& batch, const OnScored& on_scored);

// Scores a text of any length in rows of up to `length` tokens. Each row begins with `bos`
// (Tokenizer::leading_bos()), so that every token of the text is predicted exactly once; without it
// each row's first token is not predicted. Throws Error(kInvalidArgument) on a length outside
// [2, context], an empty text, an id out of range.
Score ScoreText(const Scorer& scorer, std::optional<int32_t> bos, std::span<const int32_t> ids,
                int64_t length, const OnScored& on_scored);

}  // namespace lwm::eval
