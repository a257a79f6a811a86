#include "lwm/ops/fused_loss.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/kernels/cross_entropy.h"
#include "lwm/ops/element.h"
#include "lwm/ops/linear.h"

namespace lwm::ops {
namespace {

// Logits of a slice take at most this much; below it the f32 sum of the head's gradient, which is
// read and written once per slice, would dominate.
constexpr int64_t kSliceBytes = 128 << 20;

int64_t SliceTokens(const at::Tensor& x_TD, int64_t vocab) {
  const int64_t bytes = vocab * static_cast<int64_t>(x_TD.element_size());
  return std::max<int64_t>(1, kSliceBytes / bytes);
}

void RequireInputs(const at::Tensor& x_TD, const at::Tensor& head_VD, const at::Tensor& target_T,
                   const at::Tensor& weight_T) {
  RequireFloatOrBf16("FusedLoss", "x", x_TD);
  LWM_REQUIRE(x_TD.dim() == 2 && head_VD.dim() == 2 && x_TD.size(1) == head_VD.size(1) &&
                  x_TD.scalar_type() == head_VD.scalar_type() && x_TD.is_contiguous(),
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

// Fills nll and correct of the slice; with gradients, turns the logits into theirs.
void CrossEntropySlice(at::Tensor& logits_SV, const at::Tensor& target_S, const float* weight_S,
                       float* nll_S, bool* correct_S) {
  const int64_t vocab = logits_SV.size(1);
  const int64_t* target = target_S.const_data_ptr<int64_t>();
  DispatchElement(logits_SV, [&](auto element) {
    using T = decltype(element);
    T* logits = MutableElements<T>(logits_SV);
    at::parallel_for(0, logits_SV.size(0), 4, [&](int64_t begin, int64_t end) {
      kernels::CrossEntropy(logits + begin * vocab, static_cast<size_t>(end - begin),
                            static_cast<size_t>(vocab), target + begin,
                            weight_S == nullptr ? nullptr : weight_S + begin, nll_S + begin,
                            correct_S + begin);
    });
  });
}

double WeightedSum(const at::Tensor& weight_T, const at::Tensor& nll_T) {
  const float *weight = weight_T.const_data_ptr<float>(), *nll = nll_T.const_data_ptr<float>();
  double sum = 0;
  for (int64_t t = 0; t < nll_T.numel(); ++t)
    if (weight[t] != 0) sum += static_cast<double>(weight[t]) * static_cast<double>(nll[t]);
  return sum;
}

}  // namespace

LossResult FusedLoss(const at::Tensor& x_TD, const at::Tensor& head_VD,
                     const at::Tensor& target_in_T, const at::Tensor& weight_in_T,
                     at::Tensor* dhead_VD) {
  const at::Tensor target_T = target_in_T.contiguous(), weight_T = weight_in_T.contiguous();
  RequireInputs(x_TD, head_VD, target_T, weight_T);
  const bool backward = dhead_VD != nullptr;
  if (backward) RequireGradient("FusedLoss", "dhead", *dhead_VD, head_VD.sizes());
  const int64_t tokens = x_TD.size(0), slice = SliceTokens(x_TD, head_VD.size(0));
  LossResult result;
  result.nll_T = at::empty({tokens}, weight_T.options());
  result.correct_T = at::empty({tokens}, weight_T.options().dtype(at::kBool));
  if (backward) result.dx_TD = at::empty_like(x_TD);
  for (int64_t t = 0; t < tokens; t += slice) {
    const int64_t count = std::min(slice, tokens - t);
    const at::Tensor x_SD = x_TD.narrow(0, t, count);
    at::Tensor logits_SV = at::linear(x_SD, head_VD);
    CrossEntropySlice(logits_SV, target_T.narrow(0, t, count),
                      backward ? weight_T.const_data_ptr<float>() + t : nullptr,
                      result.nll_T.mutable_data_ptr<float>() + t,
                      result.correct_T.mutable_data_ptr<bool>() + t);
    if (!backward) continue;
    at::Tensor dx_SD = result.dx_TD.narrow(0, t, count);
    at::mm_out(dx_SD, logits_SV, head_VD);
    AddWeightGradient(logits_SV, x_SD, *dhead_VD);
  }
  result.loss = WeightedSum(weight_T, result.nll_T);
  return result;
}

}  // namespace lwm::ops
