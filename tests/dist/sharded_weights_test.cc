#include "lwm/train/sharded_weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lwm/testing/tiny_sharded_model.h"
#include "lwm/train/adamw.h"
#include "tests/dist/mesh_shapes.h"
#include "tests/dist/mpi_main.h"

namespace lwm::train {
namespace {

using lwm::testing::ForEachMesh;
using lwm::testing::World;
using train::testing::SliceOf;
using train::testing::TinyModel;
using train::testing::WholeModel;

constexpr uint64_t kSeed = 11;
const InitOptions kInit = {.seed = kSeed, .table_std = 1, .matrix_std = 1};

// The part of a whole tensor that this tensor-parallel rank computes with.
at::Tensor LocalPart(const model::TensorSpec& spec, const at::Tensor& whole,
                     const dist::Mesh& mesh) {
  using Split = model::TensorSpec::Split;
  if (spec.tensor_parallel_split == Split::kNone) return whole;
  const int dim = spec.tensor_parallel_split == Split::kRows ? 0 : 1;
  return whole.chunk(mesh.shape().tp, dim)[static_cast<size_t>(mesh.tp_rank())];
}

void ExpectWeights(const std::vector<model::TensorSpec>& specs,
                   const std::vector<at::Tensor*>& tensors, const dist::Mesh& mesh,
                   WholeModel& whole, at::ScalarType dtype) {
  ASSERT_EQ(specs.size(), tensors.size());
  for (size_t i = 0; i < specs.size(); ++i)
    EXPECT_TRUE(at::equal(*tensors[i], LocalPart(specs[i], whole(specs[i]), mesh).to(dtype)))
        << specs[i].name;
}

void ExpectLayer(ShardedWeights& weights, int64_t layer, WholeModel& whole, at::ScalarType dtype) {
  const model::LayerHandle handle = weights.Layer(layer);
  model::LayerWeights tensors = *handle;
  ExpectWeights(weights.GroupSpecs(layer), model::TensorsOf(tensors), weights.mesh(), whole, dtype);
}

TEST(ShardedWeightsDistTest, GatheredGroupsEqualTheWholeTensors) {
  const config::ModelConfig config = TinyModel(4);
  ForEachMesh(World(), [&](dist::Mesh& mesh) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      WholeModel first(config, kSeed), second(config, kSeed + 1);
      ShardedWeights weights(config, mesh, dtype);
      for (WholeModel* whole : {&first, &second}) {
        if (whole == &first) {
          weights.InitRandom(kInit);
        } else {
          weights.Load(std::ref(*whole));
        }
        model::NonLayerWeights outer = weights.NonLayer();
        ExpectWeights(weights.GroupSpecs(-1), model::TensorsOf(config, outer), mesh, *whole, dtype);
        // Two forward passes, the second with its backward, and an order that nobody predicts.
        for (const int64_t layer : {0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0, 2, 0, 3, 1, 0})
          ExpectLayer(weights, layer, *whole, dtype);
      }
    }
  });
}

TEST(ShardedWeightsDistTest, TwoLayersMayBeInUse) {
  const config::ModelConfig config = TinyModel(4);
  ForEachMesh(World(), [&](dist::Mesh& mesh) {
    WholeModel whole(config, kSeed);
    ShardedWeights weights(config, mesh, at::kFloat);
    weights.InitRandom(kInit);
    for (int64_t layer = 1; layer < 4; ++layer) {
      const model::LayerHandle before = weights.Layer(layer - 1), now = weights.Layer(layer);
      ExpectLayer(weights, layer, whole, at::kFloat);
      ExpectLayer(weights, layer - 1, whole, at::kFloat);
    }
  });
}

// Whole-number gradients, so that every order of summation gives the same bits.
at::Tensor WholeGradient(const model::TensorSpec& spec, int contributor) {
  int64_t size = 1;
  for (const int64_t extent : spec.shape) size *= extent;
  return (at::arange(size, at::kFloat) * 7 + static_cast<double>(spec.name.size()))
      .remainder(13)
      .mul((contributor + 1) % 5)
      .view(spec.shape);
}

void AddGradients(const std::vector<model::TensorSpec>& specs,
                  const std::vector<at::Tensor*>& gradients, const dist::Mesh& mesh,
                  int contributor) {
  for (size_t i = 0; i < specs.size(); ++i)
    gradients[i]->add_(LocalPart(specs[i], WholeGradient(specs[i], contributor), mesh));
}

// Backward of `micro_batches` micro-batches on every rank; contributors are data ranks x sp.
void Backward(ShardedWeights& weights, int micro_batches) {
  const dist::Mesh& mesh = weights.mesh();
  const int64_t layers = weights.config().num_hidden_layers;
  for (int micro = 0; micro < micro_batches; ++micro) {
    const int contributor =
        (micro * mesh.data_size() + mesh.data_rank()) * mesh.shape().sp + mesh.sp_rank();
    AddGradients(weights.GroupSpecs(-1),
                 model::TensorsOf(weights.config(), weights.GradientsOfNonLayer()), mesh,
                 contributor);
    for (int64_t layer = layers - 1; layer >= 0; --layer) {
      AddGradients(weights.GroupSpecs(layer), model::TensorsOf(weights.GradientsOfLayer(layer)),
                   mesh, contributor);
      weights.FinishLayerGradients(layer);
    }
  }
  weights.FinishGradients();
}

at::Tensor TotalGradient(const model::TensorSpec& spec, int contributors) {
  at::Tensor sum = at::zeros(spec.shape, at::kFloat);
  for (int contributor = 0; contributor < contributors; ++contributor)
    sum += WholeGradient(spec, contributor);
  return sum;
}

TEST(ShardedWeightsDistTest, GradientsAreSummedOverMicroBatchesAndRanks) {
  for (const bool tied : {false, true}) {
    const config::ModelConfig config = TinyModel(3, !tied, tied);
    ForEachMesh(World(), [&](dist::Mesh& mesh) {
      ShardedWeights weights(config, mesh, at::kBFloat16);
      const int contributors = 2 * mesh.data_size() * mesh.shape().sp;
      for (int step = 0; step < 2; ++step) {
        Backward(weights, 2);
        for (int64_t group = weights.first_group(); group < weights.end_group(); ++group) {
          const GroupShard& shard = weights.shard(group);
          for (const ShardPiece& piece : shard.pieces)
            EXPECT_TRUE(at::equal(shard.gradient_n.narrow(0, piece.offset, piece.slice.size()),
                                  SliceOf(TotalGradient(piece.spec, contributors), piece)))
                << piece.spec.name << " " << SliceText(piece.slice);
        }
        weights.ZeroGradients();
      }
    });
  }
}

TEST(ShardedWeightsDistTest, NormIsThatOfTheWholeGradientOnEveryRank) {
  const config::ModelConfig config = TinyModel(3);
  ForEachMesh(World(), [&](dist::Mesh& mesh) {
    ShardedWeights weights(config, mesh, at::kFloat);
    Backward(weights, 1);
    double sum = 0;
    for (int64_t group = weights.first_group(); group < weights.end_group(); ++group)
      for (const model::TensorSpec& spec : weights.GroupSpecs(group))
        sum += TotalGradient(spec, mesh.data_size() * mesh.shape().sp)
                   .to(at::kDouble)
                   .square()
                   .sum()
                   .item<double>();
    const double norm = weights.GradientNorm();
    EXPECT_NEAR(norm, std::sqrt(sum), 1e-13 * norm);
    double largest[2] = {norm, -norm};
    World().AllReduceMax(largest);
    EXPECT_EQ(largest[0], -largest[1]);
  });
}

TEST(ShardedWeightsDistTest, AdamWMovesEveryShardAsOneRankWould) {
  const config::ModelConfig config = TinyModel(2);
  const AdamWOptions options = {.no_decay = {"norm"}};
  ForEachMesh(World(), [&](dist::Mesh& mesh) {
    const auto self = dist::MakeSelfCommunicator();
    dist::Mesh alone(*self, {});
    ShardedWeights whole(config, alone, at::kFloat), weights(config, mesh, at::kFloat);
    whole.InitRandom(kInit);
    weights.InitRandom(kInit);
    AdamW whole_optimizer(whole, options), optimizer(weights, options);
    const int contributors = mesh.data_size() * mesh.shape().sp;
    for (int step = 0; step < 3; ++step) {
      Backward(weights, 1);
      const double norm = weights.GradientNorm();
      for (int64_t group = whole.first_group(); group < whole.end_group(); ++group)
        for (const ShardPiece& piece : whole.shard(group).pieces)
          whole.shard(group)
              .gradient_n.narrow(0, piece.offset, piece.slice.size())
              .copy_(TotalGradient(piece.spec, contributors).flatten());
      EXPECT_NEAR(whole.GradientNorm(), norm, 1e-13 * norm);
      optimizer.Step(0.01, ClipFactor(norm, 1));
      whole_optimizer.Step(0.01, ClipFactor(norm, 1));
    }
    std::map<std::string, at::Tensor> wanted;
    whole.VisitWhole([&](const model::TensorSpec& spec, const at::Tensor& tensor) {
      wanted[spec.name] = tensor.clone();
    });
    size_t visited = 0;
    weights.VisitWhole([&](const model::TensorSpec& spec, const at::Tensor& tensor) {
      ++visited;
      EXPECT_LT((tensor - wanted.at(spec.name)).abs().max().item<float>(), 5e-7) << spec.name;
    });
    EXPECT_EQ(visited, World().rank() == 0 ? wanted.size() : 0u);
  });
}

TEST(ShardedWeightsDistTest, TensorParallelThatDoesNotDivideIsRefusedByName) {
  config::ModelConfig config = TinyModel();
  config.num_key_value_heads = 1;
  const int tp = World().size();
  dist::Mesh mesh(World(), {1, 1, tp, 1});
  if (tp == 1) {
    ShardedWeights weights(config, mesh, at::kFloat);
    return;
  }
  try {
    ShardedWeights weights(config, mesh, at::kFloat);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    const std::string field = 4 % tp == 0 ? "num_key_value_heads = 1" : "num_attention_heads = 4";
    EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace lwm::train
