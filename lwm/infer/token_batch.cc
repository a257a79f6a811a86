#include "lwm/infer/token_batch.h"

#include <ATen/ATen.h>

#include <limits>
#include <unordered_set>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/no_target.h"
#include "lwm/base/text.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/dist/sequence_plan.h"

namespace lwm::infer {
namespace {

const std::vector<std::string> kNames = {"input_ids",         "vision_mask",  "labels",
                                         "label_vision_mask", "loss_weights", "segment_ids"};

// One file's tensors, checked one by one as they are asked for.
class Reader {
 public:
  Reader(const std::map<std::string, at::Tensor>& tensors, const std::string& where)
      : tensors_(tensors), where_(where) {
    for (const auto& [name, tensor] : tensors)
      if (std::find(kNames.begin(), kNames.end(), name) == kNames.end()) {
        const std::string nearest = NearestName(name, kNames);
        LWM_REQUIRE(false, where, ": unknown tensor '", name, "'",
                    nearest.empty() ? "" : "; did you mean '" + nearest + "'?");
      }
    LWM_REQUIRE(Has("input_ids"), where, ": tensor 'input_ids' is missing");
    shape_ = tensors.at("input_ids").sizes().vec();
    LWM_REQUIRE(shape_.size() == 2 && shape_[0] >= 1 && shape_[1] >= 1, where,
                ": input_ids has shape ", at::IntArrayRef(shape_), ", want [rows, tokens]");
  }

  bool Has(const std::string& name) const { return tensors_.contains(name); }

  at::Tensor Integers(const std::string& name) const {
    const at::Tensor& tensor = Shaped(name);
    LWM_REQUIRE(at::isIntegralType(tensor.scalar_type(), /*includeBool=*/false), where_, ": ", name,
                " is ", tensor.scalar_type(), ", want integers");
    return tensor.to(at::kLong);
  }

  // Undefined when absent.
  at::Tensor Mask(const std::string& name) const {
    if (!Has(name)) return {};
    const at::Tensor& tensor = Shaped(name);
    LWM_REQUIRE(at::isIntegralType(tensor.scalar_type(), /*includeBool=*/true), where_, ": ", name,
                " is ", tensor.scalar_type(), ", want u8 or bool");
    return tensor.ne(0);
  }

  at::Tensor Floats(const std::string& name) const {
    const at::Tensor& tensor = Shaped(name);
    LWM_REQUIRE(tensor.is_floating_point(), where_, ": ", name, " is ", tensor.scalar_type(),
                ", want f32");
    LWM_REQUIRE(tensor.isfinite().all().item<bool>(), where_, ": ", name, " has NaN or infinity");
    return tensor.to(at::kFloat);
  }

  // `name` makes no sense without `other`.
  void RequireWith(const std::string& name, const std::string& other) const {
    LWM_REQUIRE(!Has(name) || Has(other), where_, ": ", name, " is given without ", other);
  }

 private:
  const at::Tensor& Shaped(const std::string& name) const {
    const at::Tensor& tensor = tensors_.at(name);
    LWM_REQUIRE(tensor.sizes() == at::IntArrayRef(shape_), where_, ": ", name, " has shape ",
                tensor.sizes(), ", input_ids ", at::IntArrayRef(shape_));
    return tensor;
  }

  const std::map<std::string, at::Tensor>& tensors_;
  const std::string& where_;
  std::vector<int64_t> shape_;
};

// begin[i] of a row; the mask rule is an interval, so a segment is one run of tokens.
void FillBegins(const int64_t* segment_T, int64_t tokens, int32_t* begin_T,
                const std::string& where) {
  std::unordered_set<int64_t> seen;
  int64_t first = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    if (t == 0 || segment_T[t] != segment_T[t - 1]) {
      LWM_REQUIRE(seen.insert(segment_T[t]).second, where, ": segment id ", segment_T[t],
                  " comes back at token ", t, "; a segment must be one run of tokens");
      first = t;
    }
    begin_T[t] = static_cast<int32_t>(first);
  }
}

at::Tensor SegmentBegins(const at::Tensor& segment_BT, const std::string& where) {
  const at::Tensor from_BT = segment_BT.contiguous();
  at::Tensor begin_BT = at::empty(segment_BT.sizes(), at::kInt);
  const int64_t tokens = segment_BT.size(1);
  for (int64_t b = 0; b < segment_BT.size(0); ++b)
    FillBegins(from_BT.const_data_ptr<int64_t>() + b * tokens, tokens,
               begin_BT.mutable_data_ptr<int32_t>() + b * tokens, where);
  return begin_BT;
}

at::Tensor Indices(const at::Tensor& begin_BT) {
  return at::arange(begin_BT.size(1), at::kInt).unsqueeze(0).expand_as(begin_BT);
}

void CheckLength(const at::Tensor& begin_BT, const config::ModelConfig& config,
                 const std::string& where) {
  const int64_t longest = (Indices(begin_BT) - begin_BT).max().item<int32_t>() + 1;
  LWM_REQUIRE(longest <= ContextLimit(config), where, ": ", longest,
              " tokens in one segment, the model's context (max_position_embeddings) is ",
              config.max_position_embeddings);
}

void CheckChosen(const at::Tensor& id_N, int64_t vocab, const std::string& what) {
  if (id_N.numel() == 0) return;
  const int64_t low = id_N.min().item<int64_t>(), high = id_N.max().item<int64_t>();
  LWM_REQUIRE(low >= 0 && high < vocab, what, " id ", low < 0 ? low : high,
              " is outside the vocabulary of ", vocab);
}

// Columns of x_BT that each row's slots of this rank hold; `empty` where a slot holds nothing.
at::Tensor TakeSlots(const at::Tensor& x_BT, const at::Tensor& index_BT, const at::Scalar& empty) {
  if (!x_BT.defined()) return {};
  // Slots without a token have index -1: they read column 0 and are overwritten.
  return x_BT.gather(1, index_BT.clamp_min(0).to(at::kLong)).masked_fill(index_BT.lt(0), empty);
}

at::Tensor SlotsOfRank(const at::Tensor& slot_PBT, const ops::SequenceView& view) {
  return slot_PBT.select(0, view.rank());
}

}  // namespace

int64_t ContextLimit(const config::ModelConfig& config) {
  return config.rope_scaling.type == config::RopeScaling::Type::kDynamic
             ? std::numeric_limits<int32_t>::max()
             : config.max_position_embeddings;
}

void CheckTokenIds(const at::Tensor& id_BT, const at::Tensor& vision_BT,
                   const config::ModelConfig& config, bool may_be_absent, const std::string& what) {
  const at::Tensor wanted_BT =
      may_be_absent ? id_BT.ne(kNoTarget) : at::ones_like(id_BT, at::kBool);
  if (!vision_BT.defined())
    return CheckChosen(id_BT.masked_select(wanted_BT), config.vocab_size, what + ": text");
  const at::Tensor code_BT = vision_BT.logical_and(wanted_BT);
  const at::Tensor text_BT = vision_BT.logical_not().logical_and(wanted_BT);
  LWM_REQUIRE(config.has_vision() || !code_BT.any().item<bool>(), what,
              ": vision tokens need a model with vision_vocab_size > 0");
  CheckChosen(id_BT.masked_select(text_BT), config.vocab_size, what + ": text");
  CheckChosen(id_BT.masked_select(code_BT), config.vision_vocab_size, what + ": vision");
}

TokenBatch MakeTokenBatch(const std::map<std::string, at::Tensor>& tensors,
                          const config::ModelConfig& config, const std::string& where) {
  const Reader reader(tensors, where);
  TokenBatch batch;
  batch.id_BT = reader.Integers("input_ids");
  batch.vision_BT = reader.Mask("vision_mask");
  CheckTokenIds(batch.id_BT, batch.vision_BT, config, /*may_be_absent=*/false,
                where + ": input_ids");
  batch.begin_BT = reader.Has("segment_ids") ? SegmentBegins(reader.Integers("segment_ids"), where)
                                             : at::zeros(batch.id_BT.sizes(), at::kInt);
  CheckLength(batch.begin_BT, config, where);
  reader.RequireWith("label_vision_mask", "labels");
  reader.RequireWith("loss_weights", "labels");
  if (!reader.Has("labels")) return batch;
  batch.target_BT = reader.Integers("labels");
  batch.target_vision_BT = reader.Mask("label_vision_mask");
  CheckTokenIds(batch.target_BT, batch.target_vision_BT, config, /*may_be_absent=*/true,
                where + ": labels");
  if (reader.Has("loss_weights")) {
    batch.weight_BT = reader.Floats("loss_weights");
  } else {
    const auto labels = batch.target_BT.ne(kNoTarget).sum().item<int64_t>();
    batch.weight_BT = at::full(batch.id_BT.sizes(),
                               labels > 0 ? 1.0 / static_cast<double>(labels) : 0.0, at::kFloat);
  }
  return batch;
}

TokenBatch ReadTokenBatch(const std::filesystem::path& path, const config::ModelConfig& config) {
  return MakeTokenBatch(checkpoint::LoadTensors(path), config, path.string());
}

model::DecoderInput DecoderInputOf(const TokenBatch& batch, dist::Communicator* sp) {
  const at::Tensor begin_BT = batch.begin_BT.contiguous();
  std::vector<dist::SequencePlan> plans;
  for (int64_t b = 0; b < batch.rows(); ++b)
    plans.push_back(dist::PlanZigzag(batch.tokens(), sp ? sp->size() : 1,
                                     {begin_BT.const_data_ptr<int32_t>() + b * batch.tokens(),
                                      static_cast<size_t>(batch.tokens())}));
  model::DecoderInput input;
  input.view = ops::MakeSequenceView(plans, sp);
  const at::Tensor index_BT = SlotsOfRank(input.view.index_PBT, input.view);
  input.id_BT = TakeSlots(batch.id_BT, index_BT, 0);
  input.vision_BT = TakeSlots(batch.vision_BT, index_BT, false);
  input.position_BT =
      (index_BT - SlotsOfRank(input.view.begin_PBT, input.view)).clamp_min(0).contiguous();
  return input;
}

model::DecoderTargets DecoderTargetsOf(const TokenBatch& batch, const model::DecoderInput& input) {
  const at::Tensor index_BT = SlotsOfRank(input.view.index_PBT, input.view);
  return {TakeSlots(batch.target_BT, index_BT, kNoTarget),
          TakeSlots(batch.target_vision_BT, index_BT, false),
          TakeSlots(batch.weight_BT, index_BT, 0)};
}

TokenBatch RowOf(const TokenBatch& batch, int64_t row) {
  const auto one = [&](const at::Tensor& x_BT) {
    return x_BT.defined() ? x_BT.slice(0, row, row + 1) : at::Tensor();
  };
  return {one(batch.id_BT),     one(batch.vision_BT),        one(batch.begin_BT),
          one(batch.target_BT), one(batch.target_vision_BT), one(batch.weight_BT)};
}

}  // namespace lwm::infer
