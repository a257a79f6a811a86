#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lwm/dist/communicator.h"

namespace lwm::dist {

// Sizes of the four axes. Ranks are numbered row-major: ((dp * FSDP + fsdp) * TP + tp) * SP + sp.
//   dp    replicas: different rows, whole copies of the sharded state
//   fsdp  different rows, parameters and optimizer state sharded
//   tp    the same rows, heads and feed-forward width split
//   sp    the same rows, tokens of each row split (ring attention); also shards parameters
struct MeshShape {
  int dp = 1, fsdp = 1, tp = 1, sp = 1;
  int ranks() const { return dp * fsdp * tp * sp; }
};

// "dp,fsdp,tp,sp" with one -1 inferred from `ranks`. Throws Error(kInvalidArgument) that says what
// would fit when the product is not `ranks`.
MeshShape ParseMeshShape(const std::string& text, int ranks);

// The communicators of this rank's position. All are valid; an axis of size 1 is a group of one.
class Mesh {
 public:
  // Collective over world, which must outlive the mesh. Throws Error(kInvalidArgument) when
  // shape.ranks() != world.size().
  Mesh(Communicator& world, const MeshShape& shape);

  const MeshShape& shape() const { return shape_; }
  int dp_rank() const { return dp_rank_; }
  int fsdp_rank() const { return fsdp_rank_; }
  int tp_rank() const { return tp_rank_; }
  int sp_rank() const { return sp_rank_; }
  // Index of the group of rows that this rank reads, of dp x fsdp groups, and their number.
  int data_rank() const { return dp_rank_ * shape_.fsdp + fsdp_rank_; }
  int data_size() const { return shape_.dp * shape_.fsdp; }

  Communicator& world() const { return world_; }
  Communicator& dp() const { return *dp_; }
  Communicator& tp() const { return *tp_; }
  Communicator& sp() const { return *sp_; }
  Communicator& shard() const { return *shard_; }  // fsdp x sp: owners of one copy of the state
  Communicator& data() const { return *data_; }    // dp x fsdp x sp: all that sum token gradients

 private:
  Communicator& world_;
  MeshShape shape_;
  int dp_rank_, fsdp_rank_, tp_rank_, sp_rank_;
  std::unique_ptr<Communicator> dp_, tp_, sp_, shard_, data_;
};

}  // namespace lwm::dist
