#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/dist/mesh.h"

namespace lwm::testing {

// Every way to arrange that many ranks, tp limited to what a model with four heads can split.
inline std::vector<dist::MeshShape> MeshShapes(int ranks) {
  std::vector<dist::MeshShape> shapes;
  for (int dp = 1; dp <= ranks; ++dp)
    for (int fsdp = 1; dp * fsdp <= ranks; ++fsdp)
      for (const int tp : {1, 2, 4})
        if (ranks % (dp * fsdp * tp) == 0)
          shapes.push_back({dp, fsdp, tp, ranks / (dp * fsdp * tp)});
  return shapes;
}

inline std::string MeshText(const dist::MeshShape& shape) {
  return Cat(shape.dp, ",", shape.fsdp, ",", shape.tp, ",", shape.sp);
}

// body(mesh) for every arrangement of the world's ranks. Collective.
inline void ForEachMesh(dist::Communicator& world, const std::function<void(dist::Mesh&)>& body) {
  for (const dist::MeshShape& shape : MeshShapes(world.size())) {
    SCOPED_TRACE(Cat("mesh ", MeshText(shape), ", rank ", world.rank()));
    dist::Mesh mesh(world, shape);
    body(mesh);
  }
}

}  // namespace lwm::testing
