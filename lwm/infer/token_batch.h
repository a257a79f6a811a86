#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

#include "lwm/config/model_config.h"
#include "lwm/model/decoder.h"

namespace lwm::infer {

// B rows of T tokens as a file gives them, with their targets.
struct TokenBatch {
  at::Tensor id_BT;             // i64
  at::Tensor vision_BT;         // bool; undefined = all text
  at::Tensor begin_BT;          // i32, index of the first token of the token's segment
  at::Tensor target_BT;         // i64, kNoTarget = none; undefined = no targets
  at::Tensor target_vision_BT;  // bool; undefined = all text
  at::Tensor weight_BT;         // f32, loss weight of each target; undefined without targets

  int64_t rows() const { return id_BT.size(0); }
  int64_t tokens() const { return id_BT.size(1); }
};

// Checks the tensors of an input file and completes them.
//   input_ids          [B,T] integers
//   vision_mask        [B,T] u8 or bool, the token is a vision code
//   labels             [B,T] integers, already the target of the position; -100 = none
//   label_vision_mask  [B,T] u8 or bool
//   loss_weights       [B,T] floats; absent = 1 / number of labels
//   segment_ids        [B,T] integers, a token sees its own segment only; absent = one segment
// Throws Error(kInvalidArgument) naming `where`, the tensor and what is wrong: an unknown name, a
// shape, an id outside its vocabulary, a segment id that comes back after another one, a segment
// longer than the model's context.
TokenBatch MakeTokenBatch(const std::map<std::string, at::Tensor>& tensors,
                          const config::ModelConfig& config, const std::string& where);
TokenBatch ReadTokenBatch(const std::filesystem::path& path, const config::ModelConfig& config);

// The part of rank `sp` (nullptr = the only one) in the zigzag split.
model::DecoderInput DecoderInputOf(const TokenBatch& batch, dist::Communicator* sp);
model::DecoderTargets DecoderTargetsOf(const TokenBatch& batch, const model::DecoderInput& input);

// Row b as a batch of its own.
TokenBatch RowOf(const TokenBatch& batch, int64_t row);

// Throws Error(kInvalidArgument) naming the id unless each is inside its own vocabulary; entries of
// kNoTarget pass when `may_be_absent`. `what` begins the message.
void CheckTokenIds(const at::Tensor& id_BT, const at::Tensor& vision_BT,
                   const config::ModelConfig& config, bool may_be_absent, const std::string& what);

// Most tokens of a segment: max_position_embeddings, or INT32_MAX with dynamic scaling, since
// positions are int32.
int64_t ContextLimit(const config::ModelConfig& config);

}  // namespace lwm::infer
