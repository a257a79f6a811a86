#include "lwm/train/gradient_scatter.h"

#include <ATen/ATen.h>

#include "lwm/base/error.h"

namespace lwm::train {

GradientScatter::GradientScatter(const config::ModelConfig& config, dist::Communicator& shard_ranks,
                                 std::vector<GroupShard>& shards,
                                 const std::vector<FlatLayout>& layouts)
    : config_(config), ranks_(shard_ranks), shards_(shards), layouts_(layouts) {
  if (!resident()) return;
  non_layer_ = ViewNonLayer<model::NonLayerGradients>(config, layouts[0], shards[0].gradient_n);
  for (size_t group = 1; group < layouts.size(); ++group)
    resident_.push_back(ViewLayer<model::LayerGradients>(layouts[group], shards[group].gradient_n));
}

model::NonLayerGradients& GradientScatter::NonLayer() {
  if (resident() || non_layer_flat_.defined()) return non_layer_;
  non_layer_flat_ = at::zeros({layouts_[0].size()}, at::kFloat);
  non_layer_ = ViewNonLayer<model::NonLayerGradients>(config_, layouts_[0], non_layer_flat_);
  return non_layer_;
}

dist::Request GradientScatter::StartScatter(const at::Tensor& flat, const at::Tensor& received_n) {
  return ranks_.StartReduceScatterSum(
      {flat.const_data_ptr<float>(), static_cast<size_t>(flat.numel())},
      {received_n.mutable_data_ptr<float>(), static_cast<size_t>(received_n.numel())});
}

void GradientScatter::Complete(Buffer& buffer) {
  if (!buffer.in_flight) return;
  buffer.request.Wait();
  buffer.in_flight = false;
  // Added, not received in place: the shard holds the sum over earlier micro-batches.
  shards_[static_cast<size_t>(buffer.layer + 1)].gradient_n.add_(buffer.received_n);
  buffer.layer = -1;
}

GradientScatter::Buffer& GradientScatter::Filling(int64_t layer) {
  // The layer's own buffer, else an empty one. With both in flight, the scatter that was started
  // first has had the time of a whole layer: waiting for it costs least.
  for (Buffer& buffer : buffers_)
    if (buffer.layer == layer && !buffer.in_flight) return buffer;
  for (Buffer& buffer : buffers_)
    if (buffer.layer < 0) return buffer;
  Buffer* oldest = nullptr;
  for (Buffer& buffer : buffers_)
    if (buffer.in_flight && (!oldest || buffer.started < oldest->started)) oldest = &buffer;
  LWM_CHECK(oldest, "gradients of more than two layers are being filled");
  Complete(*oldest);
  return *oldest;
}

model::LayerGradients& GradientScatter::Layer(int64_t layer) {
  if (resident()) return resident_[static_cast<size_t>(layer)];
  for (Buffer& buffer : buffers_) buffer.request.Test();  // lets it move on
  Buffer& buffer = Filling(layer);
  if (buffer.layer == layer) return buffer.gradients;
  const FlatLayout& layout = layouts_[static_cast<size_t>(layer + 1)];
  if (!buffer.flat.defined()) {
    buffer.flat = at::empty({layout.size()}, at::kFloat);
    buffer.received_n = at::empty({layout.shard_size()}, at::kFloat);
    buffer.gradients = ViewLayer<model::LayerGradients>(layout, buffer.flat);
  }
  buffer.flat.zero_();  // the backward pass adds to it
  buffer.layer = layer;
  return buffer.gradients;
}

void GradientScatter::Finish(int64_t layer) {
  if (resident()) return;
  Buffer& buffer = Filling(layer);
  LWM_CHECK(buffer.layer == layer, "layer ", layer, " has no gradients to finish");
  // Ends when the buffer is needed again or in FinishAll; until then flat must not change.
  buffer.request = StartScatter(buffer.flat, buffer.received_n);
  buffer.in_flight = true;
  buffer.started = ++clock_;
}

void GradientScatter::FinishAll() {
  if (resident()) return;
  NonLayer();  // ranks without tokens take part too
  const at::Tensor received_n = at::empty({layouts_[0].shard_size()}, at::kFloat);
  // The outer group is complete only now: the embedding's gradient is the last of a backward pass.
  dist::Request request = StartScatter(non_layer_flat_, received_n);
  for (Buffer& buffer : buffers_) {
    LWM_CHECK(buffer.layer < 0 || buffer.in_flight, "gradients of layer ", buffer.layer,
              " were not finished");
    Complete(buffer);
  }
  request.Wait();
  shards_[0].gradient_n.add_(received_n);
  non_layer_flat_.zero_();
}

}  // namespace lwm::train
