#include "lwm/ops/attention/cached.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lwm/base/error.h"
#include "lwm/kernels/attention/decode.h"
#include "lwm/ops/attention/block.h"

namespace lwm::ops {
namespace {

// Up to this many queries per kv head the work is bound by reading K and V; beyond it the tiles of
// the block kernels win.
constexpr int64_t kDecodeQueries = 16;
// Keys of one task, at least, and most tasks per row: by the number of keys only, so that neither
// the ranges nor the order in which they merge depend on the number of threads.
constexpr int64_t kRangeKeys = 512;
constexpr int64_t kMaxRanges = 64;

void CheckArguments(const at::Tensor& q_BTHK, const CachedKeys& keys, int64_t offset, bool causal) {
  const auto& [k_BSGK, v_BSGK, begin_B] = keys;
  LWM_REQUIRE(q_BTHK.dim() == 4 && k_BSGK.dim() == 4 && v_BSGK.sizes() == k_BSGK.sizes() &&
                  q_BTHK.size(0) == k_BSGK.size(0) && q_BTHK.size(3) == k_BSGK.size(3),
              "cached attention: want q [B,T,H,K] and k, v [B,S,G,K], got q ", q_BTHK.sizes(),
              " k ", k_BSGK.sizes(), " v ", v_BSGK.sizes());
  LWM_REQUIRE(k_BSGK.size(2) > 0 && q_BTHK.size(2) % k_BSGK.size(2) == 0,
              "cached attention: ", q_BTHK.size(2), " query heads do not divide into ",
              k_BSGK.size(2), " kv heads; want a multiple");
  const at::ScalarType dtype = q_BTHK.scalar_type();
  LWM_REQUIRE((dtype == at::kFloat || dtype == at::kBFloat16) && k_BSGK.scalar_type() == dtype &&
                  v_BSGK.scalar_type() == dtype,
              "cached attention: want q, k, v all f32 or all bf16, got ", dtype, ", ",
              k_BSGK.scalar_type(), ", ", v_BSGK.scalar_type());
  LWM_REQUIRE(k_BSGK.stride(3) == 1 && v_BSGK.stride(3) == 1,
              "cached attention: want the head dim of k and v contiguous");
  LWM_REQUIRE(offset >= 0 && (!causal || offset + q_BTHK.size(1) <= k_BSGK.size(1)),
              "cached attention: queries at ", offset, " to ", offset + q_BTHK.size(1) - 1,
              " want as many keys, got ", k_BSGK.size(1));
  LWM_REQUIRE(!begin_B.defined() || (begin_B.scalar_type() == at::kInt && begin_B.dim() == 1 &&
                                     begin_B.size(0) == q_BTHK.size(0) && begin_B.is_contiguous()),
              "cached attention: want begin i32 [", q_BTHK.size(0), "]");
}

// Many queries: the block kernels. Without causal order every query's index is the last key's.
at::Tensor AttendInBlocks(const at::Tensor& q_BTHK, const CachedKeys& cached, int64_t offset,
                          bool causal, double scale, at::Tensor* lse_BHT) {
  const auto& [k_BSGK, v_BSGK, begin_B] = cached;
  const int64_t rows = q_BTHK.size(0), tokens = q_BTHK.size(1);
  const int64_t keys = causal ? offset + tokens : k_BSGK.size(1);
  const at::Tensor index_T = causal ? at::arange(offset, offset + tokens, at::kInt)
                                    : at::full({tokens}, keys - 1, at::kInt);
  const at::Tensor begin_B1 =
      begin_B.defined() ? begin_B.view({rows, 1}) : at::zeros({1, 1}, at::kInt);
  const QueryBlock queries{q_BTHK.contiguous(), index_T.expand({rows, tokens}).contiguous(),
                           begin_B1.expand({rows, tokens}).contiguous()};
  // Position s of the cache is index s, so the interval rule does the causal mask and the padding.
  const at::Tensor index_BS = at::arange(keys, at::kInt).expand({rows, keys}).contiguous();
  AttentionCarry carry = MakeAttentionCarry(queries.q_BTHK);
  AttentionOutput output;
  AttentionBlockForward(queries, {k_BSGK.narrow(1, 0, keys), v_BSGK.narrow(1, 0, keys), index_BS},
                        scale, carry, {}, &output);
  if (lse_BHT) *lse_BHT = output.lse_BHT;
  return output.out_BTHK;
}

// Few queries, as in decoding. With one query per head the only parallel work is over keys: a task
// is a range of keys of one row, for one kv head or, where the heads of a key lie side by side in
// memory, for all of them, so that memory is read in order. Ranges merge in a fixed order. Element
// is the type that kernels/attention/decode.h reads, Scalar LibTorch's name of it.
template <class Element, class Scalar>
class Decode {
 public:
  Decode(const at::Tensor& q_BTHK, const CachedKeys& keys, int64_t offset, bool causal,
         double scale)
      : rows_(q_BTHK.size(0)),
        tokens_(q_BTHK.size(1)),
        heads_(q_BTHK.size(2)),
        kv_heads_(keys.k_BSGK.size(2)),
        dim_(q_BTHK.size(3)),
        group_(heads_ / kv_heads_),
        queries_(tokens_ * group_),
        offset_(offset),
        keys_(causal ? offset + tokens_ : keys.k_BSGK.size(1)),
        causal_(causal),
        scale_(static_cast<float>(scale)),
        q_BGMK_(
            q_BTHK.view({rows_, tokens_, kv_heads_, group_, dim_}).transpose(1, 2).contiguous()),
        k_(keys.k_BSGK),
        v_(keys.v_BSGK),
        begin_B_(keys.begin_B),
        heads_together_(kv_heads_ > 1 && k_.stride(2) < k_.stride(1)),
        ranges_(std::clamp<int64_t>(keys_ / kRangeKeys, 1, kMaxRanges)),
        state_(at::empty({rows_, kv_heads_, ranges_, queries_ * (2 + dim_)}, at::kFloat)) {}

  void Run() {
    const int64_t per_range = heads_together_ ? 1 : kv_heads_;
    const int64_t heads = heads_together_ ? kv_heads_ : 1;
    const int64_t work = std::max<int64_t>(1, keys_ / ranges_ * dim_ * heads);
    at::parallel_for(0, rows_ * per_range * ranges_, std::max<int64_t>(1, 16384 / work),
                     [&](int64_t first, int64_t last) {
                       for (int64_t i = first; i < last; ++i) {
                         const int64_t row = i / (per_range * ranges_);
                         AttendRange(row, i / ranges_ % per_range, heads, i % ranges_);
                       }
                     });
  }

  at::Tensor Finish(at::ScalarType dtype, at::Tensor* lse_BHT) {
    at::Tensor out_BTHK = at::empty({rows_, tokens_, heads_, dim_}, dtype);
    if (lse_BHT) *lse_BHT = at::empty({rows_, heads_, tokens_}, at::kFloat);
    float* lse = lse_BHT ? lse_BHT->template data_ptr<float>() : nullptr;
    auto* out = out_BTHK.template data_ptr<Scalar>();
    for (int64_t i = 0; i < rows_ * kv_heads_; ++i)
      FinishHead(i / kv_heads_, i % kv_heads_, out, lse);
    return out_BTHK;
  }

 private:
  kernels::DecodeState State(int64_t row, int64_t head, int64_t range, int64_t query = 0) const {
    float* base = state_.template data_ptr<float>() +
                  ((row * kv_heads_ + head) * ranges_ + range) * queries_ * (2 + dim_);
    return {base + query, base + queries_ + query, base + 2 * queries_ + query * dim_};
  }
  // First key of a row: left padding before it is never read.
  int64_t Begin(int64_t row) const {
    if (!begin_B_.defined()) return 0;
    return std::clamp<int64_t>(begin_B_.template const_data_ptr<int32_t>()[row], 0, keys_);
  }

  // Ranges divide the keys that the row may see, so that padded rows have equal tasks as well.
  void AttendRange(int64_t row, int64_t first_head, int64_t heads, int64_t range) const {
    const int64_t begin = Begin(row), count = keys_ - begin;
    const int64_t first = begin + count * range / ranges_;
    const int64_t last = begin + count * (range + 1) / ranges_;
    for (int64_t head = first_head; head < first_head + heads; ++head)
      kernels::ClearDecode(State(row, head, range), Size(queries_), Size(dim_));
    // All tokens see the keys that the first one sees: one pass reads them for all queries. Of the
    // rest each token sees the keys up to its own position.
    const int64_t common = causal_ ? std::clamp(offset_ + 1, first, last) : last;
    // With several heads, one tile of keys at a time for all heads. The kernel gets the address of
    // the next tile, since its prefetches would otherwise end with this one.
    const int64_t step = heads > 1 ? static_cast<int64_t>(kernels::kDecodeTileKeys) : last - first;
    for (int64_t key = first; key < common; key += step) {
      for (int64_t head = first_head; head < first_head + heads; ++head) {
        auto keys = Keys(row, head, key, std::min(step, common - key));
        if (head + 1 < first_head + heads) {
          FetchNext(keys, Keys(row, head + 1, key, keys.keys));
        } else if (key + step < common) {
          FetchNext(keys, Keys(row, first_head, key + step, std::min(step, common - key - step)));
        }
        Attend(row, head, range, keys, 0, queries_);
      }
    }
    for (int64_t t = 1; causal_ && t < tokens_; ++t) {
      const int64_t end = std::min(offset_ + t + 1, last);
      for (int64_t head = first_head; common < end && head < first_head + heads; ++head)
        Attend(row, head, range, Keys(row, head, common, end - common), t * group_, group_);
    }
  }

  static size_t Size(int64_t n) { return static_cast<size_t>(n); }
  using KeyRun = kernels::DecodeKeys<Element>;
  static void FetchNext(KeyRun& keys, const KeyRun& next) {
    keys.next_k = next.k;
    keys.next_keys = next.keys;
  }
  KeyRun Keys(int64_t row, int64_t head, int64_t first, int64_t count) const {
    const auto at = [&](const at::Tensor& x) {
      return reinterpret_cast<const Element*>(x.const_data_ptr<Scalar>()) + row * x.stride(0) +
             first * x.stride(1) + head * x.stride(2);
    };
    KeyRun keys;
    keys.k = at(k_);
    keys.v = at(v_);
    keys.keys = Size(count);
    keys.k_stride = Size(k_.stride(1));
    keys.v_stride = Size(v_.stride(1));
    return keys;
  }
  void Attend(int64_t row, int64_t head, int64_t range, const KeyRun& keys, int64_t query,
              int64_t queries) const {
    const auto* q = reinterpret_cast<const Element*>(q_BGMK_.template const_data_ptr<Scalar>()) +
                    ((row * kv_heads_ + head) * queries_ + query) * dim_;
    kernels::DecodeAttention(q, Size(queries), Size(dim_), keys, scale_,
                             State(row, head, range, query));
  }

  void FinishHead(int64_t row, int64_t head, Scalar* out, float* lse) const {
    const kernels::DecodeState total = State(row, head, 0);
    for (int64_t range = 1; range < ranges_; ++range)
      kernels::MergeDecode(State(row, head, range), Size(queries_), Size(dim_), total);
    for (int64_t m = 0; m < queries_; ++m) {
      const int64_t t = m / group_, h = head * group_ + m % group_;
      const float sum = total.sum_M[m], inverse = sum == 0 ? 0.0f : 1 / sum;
      Scalar* to = out + ((row * tokens_ + t) * heads_ + h) * dim_;
      for (int64_t c = 0; c < dim_; ++c)
        to[c] = static_cast<Scalar>(total.acc_MK[m * dim_ + c] * inverse);
      if (lse) lse[(row * heads_ + h) * tokens_ + t] = total.max_M[m] + std::log(sum);
    }
  }

  const int64_t rows_, tokens_, heads_, kv_heads_, dim_, group_, queries_, offset_, keys_;
  const bool causal_;
  const float scale_;
  const at::Tensor q_BGMK_, k_, v_, begin_B_;  // M = token * group + head of the group
  const bool heads_together_;
  const int64_t ranges_;
  const at::Tensor state_;  // of each row, kv head and range: max_M, sum_M, acc_MK
};

template <class Element, class Scalar>
at::Tensor AttendInRanges(const at::Tensor& q_BTHK, const CachedKeys& keys, int64_t offset,
                          bool causal, double scale, at::Tensor* lse_BHT) {
  Decode<Element, Scalar> decode(q_BTHK.contiguous(), keys, offset, causal, scale);
  decode.Run();
  return decode.Finish(q_BTHK.scalar_type(), lse_BHT);
}

}  // namespace

at::Tensor CachedAttention(const at::Tensor& q_BTHK, const CachedKeys& keys, int64_t offset,
                           bool causal, double scale, at::Tensor* lse_BHT) {
  CheckArguments(q_BTHK, keys, offset, causal);
  const int64_t queries = q_BTHK.size(1) * q_BTHK.size(2) / keys.k_BSGK.size(2);
  auto* attend = queries > kDecodeQueries                ? AttendInBlocks
                 : q_BTHK.scalar_type() == at::kBFloat16 ? AttendInRanges<uint16_t, at::BFloat16>
                                                         : AttendInRanges<float, float>;
  return attend(q_BTHK, keys, offset, causal, scale, lse_BHT);
}

}  // namespace lwm::ops
