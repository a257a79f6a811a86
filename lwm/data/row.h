#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lwm/base/no_target.h"

namespace lwm::data {

// One training example before packing: n tokens in order. When it was cut from a longer document,
// next_* is the token that followed there: what its last token is to predict.
struct Example {
  std::vector<int32_t> token_n;
  std::vector<uint8_t> vision_n;     // 1 = vision code
  std::vector<float> loss_weight_n;  // 0 = no loss when this token is the target; 1 = normal
  std::string source;                // "file.jsonl:17", for messages
  int32_t next_token = kNoTarget;
  uint8_t next_vision = 0;
  float next_loss_weight = 0;
};

// One packed row of S tokens, as every rank of the sp group sees it. Token i of the row is
// predicted from tokens before it in its own segment: target_S[i] is the token after i,
// kNoTarget where there is none to learn.
struct Row {
  std::vector<int32_t> token_S;
  std::vector<uint8_t> vision_S;
  std::vector<int32_t> target_S;
  std::vector<uint8_t> target_vision_S;
  std::vector<float> weight_S;  // loss weight of target_S[i], already 1 / n_valid of its example
  std::vector<int32_t> position_S;  // restarts at 0 in every segment
  std::vector<int32_t> begin_S;     // row index of the first token of the token's segment
  int64_t examples = 0;             // divisor of the sum of weighted losses, over the batch
  int64_t padding = 0;              // tokens that are padding (the row's tail; weight 0)
};

}  // namespace lwm::data
