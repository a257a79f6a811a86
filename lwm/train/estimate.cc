#include "lwm/train/estimate.h"

#include <algorithm>

#include "lwm/base/allocator.h"
#include "lwm/base/error.h"
#include "lwm/base/format.h"
#include "lwm/base/text.h"
#include "lwm/model/layer.h"
#include "lwm/model/weights.h"
#include "lwm/ops/attention/memory.h"
#include "lwm/ops/scratch_memory.h"

namespace lwm::train {
namespace {

// A process with LibTorch loaded, its thread pools started and its primitives built; with MPI's
// buffers.
constexpr double kLibrariesBytes = 185e6;
constexpr double kMpiBytes = 40e6;
// Upper limit of a slice of the fused loss.
constexpr double kLossSliceBytes = 128 << 20;

// Elements that one tp rank holds of a list of tensors.
double Elements(const std::vector<model::TensorSpec>& specs, int tp) {
  double elements = 0;
  for (const model::TensorSpec& spec : specs) {
    double count = spec.tensor_parallel_split == model::TensorSpec::Split::kNone ? 1 : 1.0 / tp;
    for (const int64_t size : spec.shape) count *= static_cast<double>(size);
    elements += count;
  }
  return elements;
}

// The workload in the letters of the formulas; H, G and F are one tp rank's.
struct Sizes {
  explicit Sizes(const MemoryWorkload& q)
      : compute(q.bf16 ? 2 : 4),
        residual(q.bf16 && q.residual_bf16 ? 2 : 4),
        tp(q.mesh.tp),
        sp(q.mesh.sp),
        owners(q.mesh.fsdp * q.mesh.sp),
        T(static_cast<double>(q.micro_rows) *
          static_cast<double>((q.row_tokens + q.mesh.sp - 1) / q.mesh.sp)),
        D(static_cast<double>(q.model.hidden_size)),
        HK(static_cast<double>(q.model.num_attention_heads * q.model.head_dim) / tp),
        GK(static_cast<double>(q.model.num_key_value_heads * q.model.head_dim) / tp),
        H(static_cast<double>(q.model.num_attention_heads) / tp),
        K(static_cast<double>(q.model.head_dim)),
        F(static_cast<double>(q.model.intermediate_size) / tp),
        V(static_cast<double>(std::max(q.model.vocab_size, q.model.vision_vocab_size))),
        L(static_cast<double>(q.model.num_hidden_layers)),
        packed(ops::PackedAttentionBytes({.dtype = q.bf16 ? at::kBFloat16 : at::kFloat,
                                          .tokens = T,
                                          .heads = H,
                                          .kv_heads = GK / K,
                                          .head_dim = q.model.head_dim})),
        slice(std::min(T, static_cast<double>(q.ffn_slice_tokens))),
        outer(Elements(model::NonLayerTensorSpecs(q.model), q.mesh.tp)),
        layer(Elements(model::LayerTensorSpecs(q.model, 0), q.mesh.tp)) {}
  double compute, residual;  // bytes of a number
  double tp, sp, owners;
  double T, D, HK, GK, H, K, F, V, L;
  double packed;  // bytes of packed copies in attention
  double slice;
  double outer, layer;  // parameters
};

// Masters, gradients and two moments in f32, and the compute copies.
double StateBytes(const Sizes& s) {
  const double own = (s.outer + s.L * s.layer) / s.owners;
  const double cast = s.compute == 2 ? 2 * own : 0;
  // 4 bytes each; the compute copy of f32 is the master itself.
  return 16 * own + cast;
}

double GatheredBytes(const Sizes& s) {
  if (s.owners == 1) return 0;
  const double layers = std::min(3.0, s.L);
  const double scattered = std::min(2.0, s.L);
  return s.compute * (s.outer + layers * s.layer) + 4 * (s.outer + scattered * s.layer) +
         4 * scattered * s.layer / s.owners;
}

// Of every layer its input, attention's output and lse; of the whole pass the last hidden states,
// their gradient, the row and its slots.
double KeptBytes(const Sizes& s) {
  constexpr double kSlotBytes = 60;
  return s.T * (s.L * (s.residual * s.D + s.compute * s.HK + 4 * s.H) +
                (s.residual + s.compute) * s.D + kSlotBytes);
}

// Packed copies, f32 sums that are rounded at the end, and buffers of the ring.
double AttentionScratchBytes(const Sizes& s) {
  const double sums = s.compute == 2 ? 4 * (s.HK + 2 * s.GK) : 0;
  const double travelling = s.sp == 1 ? 0 : 4 * s.compute * s.GK + 3 * 8 * s.GK;
  return s.packed + s.T * (sums + travelling);
}

double LogitsBytes(const Sizes& s) { return std::min(kLossSliceBytes, s.T * s.V * s.compute); }

// The scratch cached between calls, which adds to other peaks.
double KeptScratchBytes(const Sizes& s) {
  return std::min(static_cast<double>(ops::kKeptScratchBytes),
                  AttentionScratchBytes(s) + LogitsBytes(s));
}

// Of the layers that keep all of their activations.
double ActivationsBytes(const MemoryWorkload& q, const Sizes& s) {
  const int64_t layer =
      model::ActivationBytes(q.model, static_cast<int64_t>(s.T), q.mesh.tp,
                             static_cast<int64_t>(s.compute), static_cast<int64_t>(s.residual));
  const int64_t layers =
      std::min(q.model.num_hidden_layers, q.keep_bytes / std::max(layer, int64_t{1}));
  return static_cast<double>(layers * layer);
}

// Without scratch. Attention's backward holds more at once than its forward: q, k, v, their
// gradients, and the tensors of the layer around them.
double AttentionBytes(const Sizes& s) {
  const double qkv = s.compute * (s.HK + 2 * s.GK);
  const double around = s.compute * (s.D + s.HK) + 2 * s.residual * s.D + 4 * s.H + 4 * s.K;
  return s.T * (2 * qkv + around);
}

// Of a slice of the feed-forward: gate, up and their product, and two weights' gradients.
double SliceBytes(const Sizes& s) {
  return 3 * s.compute * s.slice * s.F + 2 * s.compute * s.F * s.D;
}

double FeedForwardBytes(const Sizes& s) {
  const double around = s.T * (3 * s.residual * s.D + 3 * s.compute * s.D);
  return around + SliceBytes(s);
}

// The head's gradient of one slice, hidden states and their gradients; its logits are scratch.
double LossBytes(const Sizes& s) {
  return s.V * s.D * s.compute + s.T * s.D * (4 * s.compute + 2 * s.residual);
}

// Allocator overhead. A layer's results on the heap are freed between live blocks and so are not
// returned; where they have pages of their own, the same holds for slices of two layers and a
// block. Weights and their state begin at huge pages, on average half of one behind the last.
double AllocatorBytes(const Sizes& s, double activations) {
  constexpr double kBuffersPerLayer = 5;  // master, gradient, two moments, compute copy
  const double gaps = (s.L + 1) * kBuffersPerLayer * kHugePageBytes / 2;
  if (s.T * s.D * s.compute >= kHeapBlockBytes)
    return gaps + std::min(static_cast<double>(kHeapTopBytes), kHeapBlockBytes + 2 * SliceBytes(s));
  const double freed =
      KeptBytes(s) + activations / 2 + std::max(AttentionBytes(s), FeedForwardBytes(s));
  return gaps + freed;
}

double LargestOnNode(const MemoryWorkload& workload, int ranks_on_node) {
  return EstimateTraining(workload).total() * ranks_on_node;
}

// Settings near the workload's that fit, best first.
std::vector<std::string> SuggestSettings(const MemoryWorkload& workload, int ranks_on_node,
                                         double available_bytes) {
  std::vector<std::string> advice;
  const auto fits = [&](const MemoryWorkload& q) {
    return LargestOnNode(q, ranks_on_node) <= available_bytes;
  };
  MemoryWorkload q = workload;
  for (q.micro_rows = workload.micro_rows / 2; q.micro_rows >= 1; q.micro_rows /= 2)
    if (fits(q)) {
      advice.push_back(fmt::format("train.micro_rows = {}", q.micro_rows));
      break;
    }
  q = workload;
  q.keep_bytes = 0;
  if (workload.keep_bytes > 0 && fits(q)) advice.insert(advice.begin(), "train.keep_mib = 0");
  q = workload;
  for (q.ffn_slice_tokens /= 2; q.ffn_slice_tokens >= 128; q.ffn_slice_tokens /= 2)
    if (fits(q)) {
      advice.push_back(fmt::format("train.ffn_slice_tokens = {}", q.ffn_slice_tokens));
      break;
    }
  q = workload;
  for (q.row_tokens /= 2; q.row_tokens >= 128; q.row_tokens /= 2)
    if (fits(q)) {
      advice.push_back(fmt::format("data.row_tokens = {}", q.row_tokens));
      break;
    }
  q = workload;
  for (int machines = 2; machines <= 1024; machines *= 2) {
    q.mesh.sp = workload.mesh.sp * machines;
    if (!fits(q)) continue;
    advice.push_back(
        fmt::format("{} times the ranks over {} such machines (parallel.mesh = "
                    "\"{},{},{},{}\")",
                    machines, machines, q.mesh.dp, q.mesh.fsdp, q.mesh.tp, q.mesh.sp));
    break;
  }
  return advice;
}

}  // namespace

double MemoryEstimate::total() const {
  double sum = 0;
  for (const Part& part : parts) sum += part.bytes;
  return sum;
}

MemoryWorkload MakeMemoryWorkload(const config::TrainConfig& config,
                                  const config::ModelConfig& model, const dist::MeshShape& mesh) {
  const int64_t groups = int64_t{mesh.dp} * mesh.fsdp;
  const int64_t rows = (config.RowsPerBatch() + groups - 1) / groups;
  return {.model = model,
          .mesh = mesh,
          .row_tokens = config.data.row_tokens,
          .micro_rows = std::min(config.train.micro_rows, rows),
          .bf16 = config.train.dtype == config::Dtype::kBF16,
          .residual_bf16 = config.train.StreamDtype() == config::Dtype::kBF16,
          .ffn_slice_tokens = config.train.ffn_slice_tokens,
          .keep_bytes = config.train.keep_mib << 20};
}

MemoryEstimate EstimateTraining(const MemoryWorkload& workload) {
  const Sizes s(workload);
  const bool alone = workload.mesh.ranks() == 1;
  const double activations = ActivationsBytes(workload, s);
  // Attention and the rest of a layer do not peak together: the larger one counts, with the scratch
  // that attention keeps between calls.
  const double working =
      std::max(AttentionBytes(s) + AttentionScratchBytes(s),
               KeptScratchBytes(s) + std::max(FeedForwardBytes(s), LossBytes(s)));
  return {{{"weights and optimizer", StateBytes(s)},
           {"gathered layers", GatheredBytes(s)},
           {"kept activations", KeptBytes(s) + activations},
           {"working set of a layer", working},
           {"allocator", AllocatorBytes(s, activations)},
           {"libraries", kLibrariesBytes + (alone ? 0 : kMpiBytes)}}};
}

std::string Describe(const MemoryEstimate& estimate) {
  std::string text = FormatBytes(estimate.total()) + " a rank (";
  bool first = true;
  for (const auto& part : estimate.parts) {
    if (part.bytes == 0) continue;
    text += (first ? "" : ", ") + part.name + " " + FormatBytes(part.bytes);
    first = false;
  }
  return text + ")";
}

void RequireFits(const MemoryWorkload& workload, int ranks_on_node, double available_bytes) {
  const double need = LargestOnNode(workload, ranks_on_node);
  if (need <= available_bytes) return;
  const auto advice = SuggestSettings(workload, ranks_on_node, available_bytes);
  std::string text;
  for (size_t i = 0; i < advice.size(); ++i) text += (i ? ", or " : "; it fits with ") + advice[i];
  if (advice.empty()) text = "; use a smaller model";
  throw Error(ErrorCode::kResourceExhausted,
              Cat("this run needs about ", FormatBytes(need), " on this machine (",
                  Describe(EstimateTraining(workload)), " x ", ranks_on_node, ") but ",
                  FormatBytes(available_bytes), " are free", text));
}

}  // namespace lwm::train
