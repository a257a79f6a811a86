#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lwm/config/model_config.h"
#include "lwm/config/train_config.h"
#include "lwm/dist/mesh.h"

namespace lwm::train {

// The settings that decide how much memory a training step takes.
struct MemoryWorkload {
  config::ModelConfig model;
  dist::MeshShape mesh;
  int64_t row_tokens = 0;
  int64_t micro_rows = 1;
  bool bf16 = true;           // dtype of matmul inputs
  bool residual_bf16 = true;  // of the stream between layers
  int64_t ffn_slice_tokens = 2048;
  int64_t keep_bytes = 0;  // for activations that are not computed again
};

// The settings of a recipe's run; micro_rows is at most the rows of a rank.
MemoryWorkload MakeMemoryWorkload(const config::TrainConfig& config,
                                  const config::ModelConfig& model, const dist::MeshShape& mesh);

// Bytes of one rank at the peak of a step, by purpose.
struct MemoryEstimate {
  struct Part {
    std::string name;
    double bytes = 0;
  };
  std::vector<Part> parts;
  double total() const;
};
MemoryEstimate EstimateTraining(const MemoryWorkload& workload);

// "2.4 GiB a rank: weights and optimizer 1.1 GiB, kept activations 0.8 GiB, ..."
std::string Describe(const MemoryEstimate& estimate);

// Throws Error(kResourceExhausted) when the ranks of one machine together need more than
// available_bytes, with settings that would fit.
void RequireFits(const MemoryWorkload& workload, int ranks_on_node, double available_bytes);

}  // namespace lwm::train
