#include <ATen/ATen.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/checkpoint/export.h"
#include "lwm/checkpoint/finite.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/rotary_pairs.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/checkpoint/weight_rules.h"
#include "lwm/io/msgpack_writer.h"

namespace lwm::checkpoint {
namespace {

// One record: the weight of every layer, or one of the outer group.
struct Record {
  std::string key;
  std::vector<model::TensorSpec> specs;
  bool stacked = false;
};

std::vector<Record> RecordsInOrder(const config::ModelConfig& config) {
  std::vector<Record> records;
  for (const model::TensorSpec& spec : model::NonLayerTensorSpecs(config))
    records.push_back({LwmNameOf(spec.name), {spec}});
  if (config.tie_word_embeddings) {
    model::TensorSpec head = model::NonLayerTensorSpecs(config).front();
    records.push_back({LwmNameOf("lm_head.weight"), {std::move(head)}});
  }
  const size_t first_of_layers = records.size();
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const auto specs = model::LayerTensorSpecs(config, layer);
    for (size_t i = 0; i < specs.size(); ++i) {
      if (layer == 0) records.push_back({LwmNameOf(specs[i].name), {}, true});
      records[first_of_layers + i].specs.push_back(specs[i]);
    }
  }
  std::sort(records.begin(), records.end(),
            [](const Record& a, const Record& b) { return a.key < b.key; });
  return records;
}

bool IsKernel(const Record& record) {
  return record.key.ends_with("kernel") && record.specs[0].shape.size() == 2;
}

io::TensorInfo RecordInfo(const Record& record, io::DType dtype) {
  std::vector<int64_t> shape = record.specs[0].shape;
  if (IsKernel(record)) std::reverse(shape.begin(), shape.end());
  if (record.stacked) shape.insert(shape.begin(), static_cast<int64_t>(record.specs.size()));
  return {record.key, dtype, shape};
}

// f64 as f32, which is the widest that is written.
at::Tensor NarrowFloat(const at::Tensor& weight) {
  return weight.scalar_type() == at::kDouble ? weight.to(at::kFloat) : weight;
}

}  // namespace

void SaveLwmCheckpoint(const config::ModelConfig& config, const ReadWeight& read,
                       const std::filesystem::path& file, at::ScalarType dtype) {
  io::MsgpackWriter writer(file);
  for (const Record& record : RecordsInOrder(config)) {
    writer.Begin(RecordInfo(record, ToDType(dtype)));
    for (const model::TensorSpec& spec : record.specs) {
      at::Tensor weight = read(spec);
      const int64_t heads = RotaryHeadsOf(config, spec.name);
      if (heads > 0) weight = PairsFromHalves(weight, heads);
      const auto write = [&](const at::Tensor& part) {
        const at::Tensor stored = InDtype(part, dtype);
        RequireFits(spec.name, stored);
        writer.Write(TensorBytes(stored));
      };
      weight = NarrowFloat(weight).contiguous();
      if (IsKernel(record))
        ForEachTransposedPiece(weight, dtype, write);
      else
        ForEachPiece(weight, write);
    }
  }
  writer.Finish();
}

}  // namespace lwm::checkpoint
