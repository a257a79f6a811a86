#include "lwm/ops/fused_loss.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "lwm/base/error.h"
#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/bf16.h"
#include "lwm/kernels/elementwise/cross_entropy.h"
#include "lwm/kernels/elementwise/logits_tile.h"
#include "lwm/kernels/matmul_tile.h"
#include "lwm/ops/element.h"
#include "lwm/ops/linear.h"
#include "lwm/ops/product.h"
#include "lwm/ops/scratch_memory.h"

namespace lwm::ops {
namespace {

// Most bytes of a slice's logits. With smaller slices the f32 sum of the head's gradient [V,D],
// which is read and written once per slice, would take most of the time.
constexpr int64_t kSliceBytes = 128 << 20;

int64_t SliceTokens(const at::Tensor& x_TD, int64_t vocab) {
  const int64_t bytes = vocab * static_cast<int64_t>(x_TD.element_size());
  return std::max<int64_t>(1, kSliceBytes / bytes);
}

void RequireInputs(const at::Tensor& x_TD, const at::Tensor& head_VD, const at::Tensor& target_T,
                   const at::Tensor& weight_T) {
  RequireFloatOrBf16("FusedLoss", "x", x_TD);
  LWM_REQUIRE(x_TD.dim() == 2 && head_VD.dim() == 2 && x_TD.size(1) == head_VD.size(1) &&
                  x_TD.scalar_type() == head_VD.scalar_type() && x_TD.is_contiguous() &&
                  head_VD.is_contiguous(),
              "FusedLoss: want contiguous x [tokens,dim] and head [vocab,dim] of one dtype, got x ",
              x_TD.sizes(), " ", x_TD.scalar_type(), " head ", head_VD.sizes(), " ",
              head_VD.scalar_type());
  const int64_t tokens = x_TD.size(0);
  LWM_REQUIRE(target_T.sizes() == at::IntArrayRef({tokens}) && target_T.scalar_type() == at::kLong,
              "FusedLoss: want i64 targets [", tokens, "], got ", target_T.scalar_type(), " ",
              target_T.sizes());
  LWM_REQUIRE(weight_T.sizes() == at::IntArrayRef({tokens}) && weight_T.scalar_type() == at::kFloat,
              "FusedLoss: want f32 weights [", tokens, "], got ", weight_T.scalar_type(), " ",
              weight_T.sizes());
  const int64_t* target = target_T.const_data_ptr<int64_t>();
  for (int64_t t = 0; t < tokens; ++t)
    LWM_REQUIRE(target[t] >= 0 && target[t] < head_VD.size(0), "FusedLoss: target ", target[t],
                " of token ", t, " is outside the vocabulary of ", head_VD.size(0));
}

// Weights and destination of one slice.
struct SliceOutput {
  const float* weight_S;  // nullptr: forward only
  float* nll_S;
};

// f32: logits as one matrix product, turned into their gradient in place when weights are given.
at::Tensor SliceF32(const at::Tensor& x_SD, const at::Tensor& head_VD, const int64_t* target_S,
                    const SliceOutput& out) {
  at::Tensor logits_SV = ProductTransposed(x_SD, head_VD);
  const int64_t vocab = head_VD.size(0);
  float* logits = logits_SV.mutable_data_ptr<float>();
  at::parallel_for(0, x_SD.size(0), 4, [&](int64_t begin, int64_t end) {
    kernels::CrossEntropy(logits + begin * vocab, static_cast<size_t>(end - begin),
                          static_cast<size_t>(vocab), target_S + begin,
                          out.weight_S == nullptr ? nullptr : out.weight_S + begin,
                          out.nll_S + begin);
  });
  return logits_SV;
}

// bf16: logits rounded to 8 bits would add an error of 1e-2 to the loss of a token. So tiles of the
// vocabulary are multiplied with f32 results, which never leave the cache as logits. Of each tile
// (J) only each row's largest logit, its sum of exponentials and, in bf16, the exponentials
// themselves are kept. The exponentials round with relative precision, relative to their own tile's
// largest logit, and become the gradient in place once the sum over all tiles is known.
class TiledSlice {
 public:
  TiledSlice(const at::Tensor& x_SD, const at::Tensor& head_VD, const int64_t* target_S,
             const SliceOutput& out)
      : x_(Elements<uint16_t>(x_SD)),
        head_(Elements<uint16_t>(head_VD)),
        target_(target_S),
        out_(out),
        tokens_(x_SD.size(0)),
        dim_(x_SD.size(1)),
        vocab_(head_VD.size(0)),
        block_(std::clamp(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens_))),
                          int64_t{16}, int64_t{128})),
        // A packed tile of the head is at most 1 MiB up to dim 4096 in bf16.
        tile_(dim_ <= 2048 ? 256 : 128),
        num_tiles_((vocab_ + tile_ - 1) / tile_),
        largest_JS_(at::empty({num_tiles_, tokens_}, x_SD.options().dtype(at::kFloat))),
        sum_JS_(at::empty_like(largest_JS_)),
        chosen_S_(at::empty({tokens_}, largest_JS_.options())) {
    if (out.weight_S != nullptr) exp_SV_ = ScratchTensor({tokens_, vocab_}, at::kBFloat16);
  }

  // Returns the gradient of the logits, undefined when forward only. Threads share the vocabulary,
  // not the tokens: each packs its tiles of the head once and uses them for all tokens of the
  // slice.
  at::Tensor Run() {
    at::parallel_for(0, num_tiles_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) MultiplyTile(j);
    });
    at::parallel_for(0, tokens_, 4, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) FinishToken(t);
    });
    return exp_SV_;
  }

 private:
  void MultiplyTile(int64_t j) {
    const int64_t first = j * tile_, cols = std::min(tile_, vocab_ - first);
    const kernels::TileMatmulShape shape{kernels::TileType::kBF16, static_cast<int>(block_),
                                         static_cast<int>(cols), static_cast<int>(dim_), false};
    kernels::TileMatmul& matmul = kernels::ThreadTileMatmul(shape);
    const auto packed = kernels::MakeAlignedBuffer<uint8_t>(matmul.packed_bytes());
    const auto logits = kernels::MakeAlignedBuffer<float>(static_cast<size_t>(block_ * cols));
    matmul.Pack(head_ + first * dim_, true, packed.get());
    kernels::AlignedBuffer<uint16_t> padded;
    for (int64_t t = 0; t < tokens_; t += block_) {
      const int64_t rows = std::min(block_, tokens_ - t);
      const uint16_t* x = x_ + t * dim_;
      // The product's shape is fixed: the last block is padded with zeros, and its extra rows
      // dropped.
      if (rows < block_) {
        const auto count = static_cast<size_t>(rows * dim_);
        padded = kernels::MakeAlignedBuffer<uint16_t>(static_cast<size_t>(block_ * dim_));
        std::copy_n(x, count, padded.get());
        std::fill(padded.get() + count, padded.get() + block_ * dim_, uint16_t{0});
        x = padded.get();
      }
      matmul.Run(x, packed.get(), logits.get());
      KeepTile(j, t, rows, first, cols, logits.get());
    }
  }

  void KeepTile(int64_t j, int64_t t, int64_t rows, int64_t first, int64_t cols,
                const float* logits) {
    uint16_t* exp =
        exp_SV_.defined() ? MutableElements<uint16_t>(exp_SV_) + t * vocab_ + first : nullptr;
    kernels::SoftmaxOfTile(logits, static_cast<size_t>(rows), static_cast<size_t>(cols),
                           largest_JS_.mutable_data_ptr<float>() + j * tokens_ + t,
                           sum_JS_.mutable_data_ptr<float>() + j * tokens_ + t, exp,
                           static_cast<size_t>(vocab_));
    // The target's logit, in f32, while the tile is here: exactly one tile has it.
    float* chosen = chosen_S_.mutable_data_ptr<float>() + t;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t column = target_[t + r] - first;
      if (column >= 0 && column < cols) chosen[r] = logits[r * cols + column];
    }
  }

  // Merges the tiles' sums, in order, so that the bits do not depend on the threads. Turns the
  // exponentials into weight * (softmax - one hot).
  void FinishToken(int64_t t) {
    const float* largest_J = largest_JS_.const_data_ptr<float>() + t;
    const float* sum_J = sum_JS_.const_data_ptr<float>() + t;
    float largest = largest_J[0];
    for (int64_t j = 1; j < num_tiles_; ++j) largest = std::max(largest, largest_J[j * tokens_]);
    float sum = 0;
    for (int64_t j = 0; j < num_tiles_; ++j)
      sum += sum_J[j * tokens_] * std::exp(largest_J[j * tokens_] - largest);
    const float chosen = chosen_S_.const_data_ptr<float>()[t];
    const float nll = std::log(sum) + (largest - chosen);
    out_.nll_S[t] = nll;
    if (out_.weight_S == nullptr) return;
    uint16_t* row_V = MutableElements<uint16_t>(exp_SV_) + t * vocab_;
    const float weight = out_.weight_S[t];
    // Set, not scaled: 0 x NaN would reach the gradients of a token that does not count.
    if (weight == 0) {
      std::fill_n(row_V, vocab_, uint16_t{0});
      return;
    }
    for (int64_t j = 0; j < num_tiles_; ++j)
      kernels::ScaleBf16(row_V + j * tile_,
                         static_cast<size_t>(std::min(tile_, vocab_ - j * tile_)),
                         weight / sum * std::exp(largest_J[j * tokens_] - largest));
    // p - 1 = exp(-nll) - 1 by expm1: the difference would lose its digits when p is near 1.
    row_V[target_[t]] = kernels::Bf16FromFloat(weight * std::expm1(-nll));
  }

  const uint16_t *x_, *head_;
  const int64_t* target_;
  SliceOutput out_;
  int64_t tokens_, dim_, vocab_;
  int64_t block_, tile_;  // tokens and vocabulary entries of one product: B stays in the cache
  int64_t num_tiles_;
  at::Tensor largest_JS_, sum_JS_, chosen_S_;
  at::Tensor exp_SV_;
};

// In f64 and in order. A token of weight 0 is skipped, so that its NaN does not reach the loss.
double WeightedSum(const at::Tensor& weight_T, const at::Tensor& nll_T) {
  const float *weight = weight_T.const_data_ptr<float>(), *nll = nll_T.const_data_ptr<float>();
  double sum = 0;
  for (int64_t t = 0; t < nll_T.numel(); ++t)
    if (weight[t] != 0) sum += static_cast<double>(weight[t]) * static_cast<double>(nll[t]);
  return sum;
}

}  // namespace

LossResult FusedLoss(const at::Tensor& x_TD, const LinearWeight& head,
                     const at::Tensor& target_in_T, const at::Tensor& weight_in_T,
                     at::Tensor* dhead_VD, double scale) {
  const at::Tensor& head_VD = head.dense();
  const at::Tensor target_T = target_in_T.contiguous(), weight_T = weight_in_T.contiguous();
  RequireInputs(x_TD, head_VD, target_T, weight_T);
  const bool backward = dhead_VD != nullptr;
  if (backward) RequireGradient("FusedLoss", "dhead", *dhead_VD, head_VD.sizes());
  const int64_t tokens = x_TD.size(0), slice = SliceTokens(x_TD, head_VD.size(0));
  LossResult result;
  result.nll_T = at::empty({tokens}, weight_T.options());
  // The scale enters through the weights: gradients need no pass of their own for it.
  const at::Tensor scaled_T = backward ? weight_T * scale : at::Tensor();
  if (backward) result.dx_TD = at::empty_like(x_TD);
  for (int64_t t = 0; t < tokens; t += slice) {
    const int64_t count = std::min(slice, tokens - t);
    const at::Tensor x_SD = x_TD.narrow(0, t, count);
    const SliceOutput out{backward ? scaled_T.const_data_ptr<float>() + t : nullptr,
                          result.nll_T.mutable_data_ptr<float>() + t};
    const int64_t* target_S = target_T.const_data_ptr<int64_t>() + t;
    const at::Tensor dlogits_SV = x_TD.scalar_type() == at::kFloat
                                      ? SliceF32(x_SD, head_VD, target_S, out)
                                      : TiledSlice(x_SD, head_VD, target_S, out).Run();
    // Gradients of the slice at once, so that its logits can be freed before the next slice.
    if (!backward) continue;
    at::Tensor dx_SD = result.dx_TD.narrow(0, t, count);
    ProductInto(dx_SD, dlogits_SV, head_VD);
    AddWeightGradient(dlogits_SV, x_SD, *dhead_VD);
  }
  result.loss = WeightedSum(weight_T, result.nll_T);
  return result;
}

}  // namespace lwm::ops
