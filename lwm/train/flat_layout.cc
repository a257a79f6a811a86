#include "lwm/train/flat_layout.h"

#include <ATen/ATen.h>

#include "lwm/base/error.h"
#include "lwm/base/round_up.h"

namespace lwm::train {
namespace {

constexpr int64_t kAlign = 32;  // elements: 64 bytes in bf16

}  // namespace

FlatLayout::FlatLayout(const std::vector<model::TensorSpec>& specs, int tp_rank, int tp_ranks,
                       int ranks)
    : ranks_(ranks) {
  int64_t offset = 0;
  for (const model::TensorSpec& spec : specs) {
    const TensorSlice part = PartSlice(spec, tp_rank, tp_ranks);
    std::vector<int64_t> shape = {part.part_rows()};
    if (spec.shape.size() > 1) shape.push_back(part.part_cols());
    places_.push_back({spec, part, shape, offset});
    offset = RoundUp(offset + part.size(), kAlign);
  }
  // Equal shards, as all-gather and reduce-scatter want them. A boundary may cut a tensor anywhere;
  // Pieces says which elements are on which side.
  shard_size_ = RoundUp(offset, kAlign * ranks) / ranks;
}

std::vector<at::Tensor> FlatLayout::Views(const at::Tensor& flat) const {
  LWM_CHECK(flat.numel() == size(), "flat buffer of ", flat.numel(), ", want ", size());
  std::vector<at::Tensor> views;
  for (const Place& place : places_)
    views.push_back(flat.narrow(0, place.offset, place.part.size()).view(place.shape));
  return views;
}

std::vector<ShardPiece> FlatLayout::Pieces(int rank) const {
  std::vector<ShardPiece> pieces;
  const int64_t shard_begin = rank * shard_size_, shard_end = shard_begin + shard_size_;
  for (const Place& place : places_) {
    const int64_t begin = std::max(shard_begin, place.offset);
    const int64_t end = std::min(shard_end, place.offset + place.part.size());
    if (begin >= end) continue;
    TensorSlice slice = place.part;
    slice.begin = begin - place.offset;
    slice.end = end - place.offset;
    pieces.push_back({place.spec, slice, begin - shard_begin});
  }
  return pieces;
}

namespace {

void PointInto(const FlatLayout& layout, const at::Tensor& flat,
               const std::vector<at::Tensor*>& members) {
  const std::vector<at::Tensor> views = layout.Views(flat);
  LWM_CHECK(views.size() == members.size(), views.size(), " tensors for ", members.size());
  for (size_t i = 0; i < views.size(); ++i) *members[i] = views[i];
}

}  // namespace

template <class Layer>
Layer ViewLayer(const FlatLayout& layout, const at::Tensor& flat) {
  Layer layer;
  PointInto(layout, flat, model::TensorsOf(layer));
  return layer;
}

template <class NonLayer>
NonLayer ViewNonLayer(const config::ModelConfig& config, const FlatLayout& layout,
                      const at::Tensor& flat) {
  NonLayer non_layer;
  PointInto(layout, flat, model::TensorsOf(config, non_layer));
  if (config.tie_word_embeddings) non_layer.head_VD = non_layer.embed_VD;
  return non_layer;
}

template model::LayerWeights ViewLayer(const FlatLayout&, const at::Tensor&);
template model::LayerGradients ViewLayer(const FlatLayout&, const at::Tensor&);
template model::NonLayerWeights ViewNonLayer(const config::ModelConfig&, const FlatLayout&,
                                             const at::Tensor&);
template model::NonLayerGradients ViewNonLayer(const config::ModelConfig&, const FlatLayout&,
                                               const at::Tensor&);

}  // namespace lwm::train
