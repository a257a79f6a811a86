#include "lwm/train/sharded_weights.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <numbers>

#include "lwm/base/error.h"
#include "lwm/base/random.h"
#include "lwm/train/flat_layout.h"
#include "lwm/train/gradient_scatter.h"
#include "lwm/train/weight_gather.h"

namespace lwm::train {
namespace {

constexpr int kGatherTag = 901;
constexpr int64_t kSumChunk = 1 << 16;

void RequireDivisible(const char* field, int64_t value, int tp) {
  LWM_REQUIRE(value % tp == 0, "mesh: tp ", tp, " does not divide ", field, " = ", value,
              "; choose a tp that does");
}

// FNV-1a: the same key for a name on every machine.
uint64_t NameKey(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

// Elements [first, first + count) of the normal stream `key`: Box-Muller over pairs of elements.
void DrawNormal(uint64_t key, double std, int64_t first, int64_t count, float* out) {
  for (int64_t pair = first / 2; pair * 2 < first + count; ++pair) {
    // Two draws a pair, whether both elements are wanted or one: runs may begin and end anywhere.
    Random random(key, static_cast<uint64_t>(pair) * 2);
    const double radius = std * std::sqrt(-2 * std::log(1 - random.Uniform()));
    const double angle = 2 * std::numbers::pi * random.Uniform();
    const int64_t at = pair * 2 - first;
    if (at >= 0) out[at] = static_cast<float>(radius * std::cos(angle));
    if (at + 1 < count) out[at + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

double StandardDeviation(const InitOptions& options, int64_t group, const std::string& name) {
  if (group < 0) return options.table_std;
  const bool residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
  return options.matrix_std * (residual ? options.residual_scale : 1);
}

// Element i of a tensor is a function of (seed, name, i): a rank draws only the parts that it
// owns, and the model is the same on every mesh.
void InitPiece(const InitOptions& options, int64_t group, const ShardPiece& piece, float* out) {
  if (piece.spec.shape.size() == 1) {
    std::fill_n(out, piece.slice.size(), 1.0f);
    return;
  }
  const uint64_t key = DeriveKey(options.seed, NameKey(piece.spec.name));
  const double std = StandardDeviation(options, group, piece.spec.name);
  ForEachRun(piece.slice, [&](int64_t first, int64_t offset, int64_t count) {
    at::parallel_for(0, count, 1 << 12, [&](int64_t begin, int64_t end) {
      DrawNormal(key, std, first + begin, end - begin, out + offset + begin);
    });
  });
}

double SumOfSquares(const float* x, int64_t count) {
  double a = 0, b = 0, c = 0, d = 0;  // four chains of additions run side by side
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const double p = x[i], q = x[i + 1], r = x[i + 2], s = x[i + 3];
    a += p * p;
    b += q * q;
    c += r * r;
    d += s * s;
  }
  for (; i < count; ++i) a += static_cast<double>(x[i]) * x[i];
  return (a + b) + (c + d);
}

// Fixed chunks, added in order: independent of the number of threads.
double ParallelSumOfSquares(const float* x, int64_t count) {
  std::vector<double> sums(static_cast<size_t>((count + kSumChunk - 1) / kSumChunk));
  at::parallel_for(0, static_cast<int64_t>(sums.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c)
      sums[static_cast<size_t>(c)] =
          SumOfSquares(x + c * kSumChunk, std::min(kSumChunk, count - c * kSumChunk));
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

// Tensors that tp does not split are equal on all its ranks: only the first rank's count.
bool IsCopy(const ShardPiece& piece, int64_t tp_rank) {
  return tp_rank > 0 && piece.slice.split == TensorSlice::Split::kNone;
}

std::span<const std::byte> ConstBytes(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::span<std::byte> MutableBytes(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

}  // namespace

struct ShardedWeights::Parts {
  std::vector<FlatLayout> layouts;
  std::unique_ptr<WeightGather> gather;
  std::unique_ptr<GradientScatter> scatter;
};

ShardedWeights::ShardedWeights(const config::ModelConfig& config, dist::Mesh& mesh,
                               at::ScalarType compute_dtype)
    : config_(config), mesh_(mesh), parts_(std::make_unique<Parts>()) {
  const int tp = mesh.shape().tp;
  RequireDivisible("num_attention_heads", config.num_attention_heads, tp);
  RequireDivisible("num_key_value_heads", config.num_key_value_heads, tp);
  RequireDivisible("intermediate_size", config.intermediate_size, tp);
  for (int64_t group = first_group(); group < end_group(); ++group) {
    const FlatLayout& layout =
        parts_->layouts.emplace_back(GroupSpecs(group), mesh.tp_rank(), tp, mesh.shard().size());
    const at::Tensor master_n = at::zeros({layout.shard_size()}, at::kFloat);
    // In f32 the compute copy is the master: no cast, no memory.
    shards_.push_back({master_n,
                       compute_dtype == at::kFloat ? master_n : master_n.to(compute_dtype),
                       at::zeros_like(master_n), layout.Pieces(mesh.shard().rank())});
  }
  parts_->gather = std::make_unique<WeightGather>(config_, mesh.shard(), shards_, parts_->layouts);
  parts_->scatter =
      std::make_unique<GradientScatter>(config_, mesh.shard(), shards_, parts_->layouts);
}

ShardedWeights::~ShardedWeights() = default;

std::vector<model::TensorSpec> ShardedWeights::GroupSpecs(int64_t group) const {
  return group < 0 ? model::NonLayerTensorSpecs(config_) : model::LayerTensorSpecs(config_, group);
}

void ShardedWeights::InitRandom(const InitOptions& options) {
  parts_->gather->WaitForAll();
  for (int64_t group = first_group(); group < end_group(); ++group)
    for (const ShardPiece& piece : shard(group).pieces)
      InitPiece(options, group, piece,
                shard(group).master_n.mutable_data_ptr<float>() + piece.offset);
  MastersChanged();
}

void ShardedWeights::Load(const std::function<at::Tensor(const model::TensorSpec&)>& read) {
  parts_->gather->WaitForAll();
  for (GroupShard& shard : shards_) {
    for (const ShardPiece& piece : shard.pieces) {
      const at::Tensor whole = read(piece.spec);
      if (!whole.defined()) continue;
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, whole.sizes() == at::IntArrayRef(piece.spec.shape),
                     piece.spec.name, " has shape ", whole.sizes(), ", the model wants ",
                     at::IntArrayRef(piece.spec.shape));
      const at::Tensor flat = whole.reshape({-1});
      const at::Tensor mine = shard.master_n.narrow(0, piece.offset, piece.slice.size());
      ForEachRun(piece.slice, [&](int64_t first, int64_t offset, int64_t count) {
        mine.narrow(0, offset, count).copy_(flat.narrow(0, first, count));
      });
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, at::isfinite(mine).all().item<bool>(),
                     piece.spec.name, " holds values that are not finite (NaN or Inf)");
    }
  }
  MastersChanged();
}

const model::NonLayerWeights& ShardedWeights::NonLayer() const {
  return parts_->gather->NonLayer();
}

const model::LayerWeights& ShardedWeights::AcquireLayer(int64_t layer) const {
  return parts_->gather->Layer(layer);
}

void ShardedWeights::ReleaseLayer(int64_t layer) const { parts_->gather->Release(layer); }

model::NonLayerGradients& ShardedWeights::GradientsOfNonLayer() {
  return parts_->scatter->NonLayer();
}

model::LayerGradients& ShardedWeights::GradientsOfLayer(int64_t layer) {
  return parts_->scatter->Layer(layer);
}

void ShardedWeights::FinishLayerGradients(int64_t layer) { parts_->scatter->Finish(layer); }

void ShardedWeights::FinishGradients() {
  // A layer gathered ahead may still be in flight; it is sent from the compute copy, which the
  // optimizer writes next.
  parts_->gather->WaitForAll();
  parts_->scatter->FinishAll();
  if (mesh_.dp().size() == 1) return;
  for (GroupShard& shard : shards_)
    mesh_.dp().AllReduceSum(std::span(shard.gradient_n.mutable_data_ptr<float>(),
                                      static_cast<size_t>(shard.gradient_n.numel())));
}

double ShardedWeights::GradientNorm() {
  // dp ranks hold equal sums after FinishGradients, so only shard and tp ranks are added.
  double sum = 0;
  for (const GroupShard& shard : shards_)
    for (const ShardPiece& piece : shard.pieces)
      if (!IsCopy(piece, mesh_.tp_rank()))
        sum += ParallelSumOfSquares(shard.gradient_n.const_data_ptr<float>() + piece.offset,
                                    piece.slice.size());
  mesh_.shard().AllReduceSum(std::span(&sum, 1));
  mesh_.tp().AllReduceSum(std::span(&sum, 1));
  return std::sqrt(sum);
}

void ShardedWeights::ZeroGradients() {
  for (GroupShard& shard : shards_) shard.gradient_n.zero_();
}

void ShardedWeights::MastersChanged() {
  parts_->gather->WaitForAll();
  for (GroupShard& shard : shards_)
    if (!shard.compute_n.is_same(shard.master_n)) shard.compute_n.copy_(shard.master_n);
  ComputeWeightsChanged();
}

void ShardedWeights::ComputeWeightsChanged() { parts_->gather->Forget(); }

void ShardedWeights::VisitWhole(
    const std::function<void(const model::TensorSpec&, const at::Tensor& whole)>& visit) {
  for (int64_t group = first_group(); group < end_group() && mesh_.dp_rank() == 0; ++group)
    VisitGroup(group, 0, visit);
}

void ShardedWeights::VisitGroup(
    int64_t group, int owner,
    const std::function<void(const model::TensorSpec&, const at::Tensor&)>& visit) {
  dist::Communicator& world = mesh_.world();
  const at::Tensor& master_n = shard(group).master_n;
  // Every rank sends its shard; the owner receives them one after another into one buffer, so it
  // holds one group and one shard, never the model.
  if (world.rank() != owner) {
    world.StartSend(ConstBytes(master_n), owner, kGatherTag).Wait();
    return;
  }
  const std::vector<model::TensorSpec> specs = GroupSpecs(group);
  std::vector<at::Tensor> wholes;
  for (const auto& spec : specs) wholes.push_back(at::empty(spec.shape, at::kFloat));
  const at::Tensor received_n = at::empty_like(master_n);
  const dist::MeshShape& shape = mesh_.shape();
  // World ranks with dp_rank 0 in rising order: ((fsdp * TP) + tp) * SP + sp.
  for (int rank = 0; rank < shape.fsdp * shape.tp * shape.sp; ++rank) {
    const int tp_rank = rank / shape.sp % shape.tp;
    const int shard_rank = rank / (shape.sp * shape.tp) * shape.sp + rank % shape.sp;
    if (rank != owner) world.StartReceive(MutableBytes(received_n), rank, kGatherTag).Wait();
    const float* from = (rank == owner ? master_n : received_n).const_data_ptr<float>();
    const FlatLayout layout(specs, tp_rank, shape.tp, mesh_.shard().size());
    size_t at = 0;  // pieces are in the order of the specs
    for (const ShardPiece& piece : layout.Pieces(shard_rank)) {
      while (specs[at].name != piece.spec.name) ++at;
      if (!IsCopy(piece, tp_rank))
        CopyOverlap(piece.slice, from + piece.offset, WholeSlice(piece.spec),
                    wholes[at].mutable_data_ptr<float>());
    }
  }
  for (size_t i = 0; i < specs.size(); ++i) visit(specs[i], wholes[i]);
}

double ClipFactor(double norm, double max_norm) {
  return max_norm > 0 && norm > max_norm ? max_norm / norm : 1;
}

}  // namespace lwm::train
