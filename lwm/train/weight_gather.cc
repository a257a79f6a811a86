#include "lwm/train/weight_gather.h"

#include <ATen/ATen.h>

#include "lwm/base/error.h"

namespace lwm::train {
namespace {

// One layer in use, one on its way; a third where two are in use at the same time.
constexpr size_t kMostSlots = 3;

template <class Span>
Span BytesOf(const at::Tensor& tensor) {
  return {static_cast<typename Span::pointer>(tensor.data_ptr()), tensor.nbytes()};
}

}  // namespace

WeightGather::WeightGather(const config::ModelConfig& config, dist::Communicator& shard_ranks,
                           const std::vector<GroupShard>& shards,
                           const std::vector<FlatLayout>& layouts)
    : config_(config), ranks_(shard_ranks), shards_(shards), layouts_(layouts) {
  if (!resident()) return;
  non_layer_ = ViewNonLayer<model::NonLayerWeights>(config, layouts[0], shards[0].compute_n);
  for (size_t group = 1; group < layouts.size(); ++group)
    resident_.push_back(ViewLayer<model::LayerWeights>(layouts[group], shards[group].compute_n));
}

dist::Request WeightGather::StartGather(int64_t group, const at::Tensor& flat) {
  return ranks_.StartAllGather(BytesOf<std::span<const std::byte>>(compute(group)),
                               BytesOf<std::span<std::byte>>(flat));
}

const model::NonLayerWeights& WeightGather::NonLayer() {
  if (resident() || non_layer_fresh_) return non_layer_;
  if (!non_layer_flat_.defined()) {
    non_layer_flat_ = at::empty({layouts_[0].size()}, compute(0).options());
    non_layer_ = ViewNonLayer<model::NonLayerWeights>(config_, layouts_[0], non_layer_flat_);
  }
  dist::Request request = StartGather(0, non_layer_flat_);
  // Layer 0 is used next: its gather runs behind this one.
  if (config_.num_hidden_layers > 0 && !Find(0)) Start(0);
  request.Wait();
  non_layer_fresh_ = true;
  return non_layer_;
}

WeightGather::Slot* WeightGather::Find(int64_t layer) {
  for (const auto& slot : slots_)
    if (slot->layer == layer) return slot.get();
  return nullptr;
}

WeightGather::Slot* WeightGather::FreeSlot() {
  Slot* oldest = nullptr;
  for (const auto& slot : slots_)
    if (!slot->in_use && (!oldest || slot->last_use < oldest->last_use)) oldest = slot.get();
  // Two slots suffice while one of them is free; memory of a third is taken only when none is.
  if ((oldest && slots_.size() >= 2) || slots_.size() == kMostSlots) return oldest;
  return slots_.emplace_back(std::make_unique<Slot>()).get();
}

WeightGather::Slot* WeightGather::Start(int64_t layer) {
  Slot* slot = FreeSlot();
  if (!slot) return nullptr;
  // It may have been gathered ahead and never used: the buffer is written until that is done.
  slot->request.Wait();
  const auto group = static_cast<size_t>(layer + 1);
  if (!slot->flat.defined()) {
    slot->flat = at::empty({layouts_[group].size()}, compute(layer + 1).options());
    slot->weights = ViewLayer<model::LayerWeights>(layouts_[group], slot->flat);
  }
  slot->layer = layer;
  slot->last_use = ++clock_;
  slot->request = StartGather(layer + 1, slot->flat);
  return slot;
}

// The layer that is likely to be asked for after this one; -1 or L at the ends. A wrong guess costs
// a gather, never the result. It depends on the order of calls alone, which all shard ranks share,
// so they start the same collectives in the same order.
int64_t WeightGather::NextLayer(int64_t layer) {
  if (layer > last_layer_ || layer == 0)
    direction_ = 1;
  else if (layer < last_layer_ || layer == config_.num_hidden_layers - 1)
    direction_ = -1;
  // The last layer is where forward turns into backward; the first is where backward ends.
  if (layer == 0 && last_layer_ == 1) direction_ = -1;
  last_layer_ = layer;
  return layer + direction_;
}

const model::LayerWeights& WeightGather::Layer(int64_t layer) {
  if (resident()) return resident_[static_cast<size_t>(layer)];
  Slot* slot = Find(layer);
  if (!slot) slot = Start(layer);
  LWM_CHECK(slot, "more than ", kMostSlots, " layers in use at a time");
  ++slot->in_use;
  slot->last_use = ++clock_;
  const int64_t next = NextLayer(layer);
  // Started before the wait below, so that it travels while this layer is computed.
  if (next >= 0 && next < config_.num_hidden_layers && !Find(next)) Start(next);
  slot->request.Wait();
  return slot->weights;
}

void WeightGather::Release(int64_t layer) {
  if (resident()) return;
  Slot* slot = Find(layer);
  LWM_CHECK(slot && slot->in_use, "layer ", layer, " is not in use");
  --slot->in_use;
}

void WeightGather::WaitForAll() {
  for (const auto& slot : slots_) slot->request.Wait();
}

void WeightGather::Forget() {
  WaitForAll();
  non_layer_fresh_ = false;
  for (const auto& slot : slots_) {
    LWM_CHECK(!slot->in_use, "weights changed while layer ", slot->layer, " is in use");
    slot->layer = -1;
  }
}

}  // namespace lwm::train
