#include "lwm/dist/mesh.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"

namespace lwm::dist {
namespace {

// The comma-separated integers of `text`; throws when one is not an integer.
std::vector<int> ParseIntegers(const std::string& text) {
  std::vector<int> values;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at <= end) {
    const char* comma = std::find(at, end, ',');
    int value = 0;
    const auto [stop, code] = std::from_chars(at, comma, value);
    LWM_REQUIRE(code == std::errc() && stop == comma, "mesh '", text, "': '",
                std::string(at, comma), "' is not a whole number; want dp,fsdp,tp,sp like 1,1,1,2");
    values.push_back(value);
    at = comma + 1;
  }
  return values;
}

}  // namespace

MeshShape ParseMeshShape(const std::string& text, int ranks) {
  std::vector<int> size = ParseIntegers(text);
  LWM_REQUIRE(size.size() == 4, "mesh '", text, "' has ", size.size(),
              " sizes; want four: dp,fsdp,tp,sp");
  int64_t product = 1;
  int inferred = -1;
  for (int i = 0; i < 4; ++i) {
    LWM_REQUIRE(size[i] >= 1 || size[i] == -1, "mesh '", text, "': size ", size[i],
                "; want at least 1, or -1 for what is left");
    LWM_REQUIRE(size[i] != -1 || inferred < 0, "mesh '", text, "': only one size may be -1");
    if (size[i] == -1) {
      inferred = i;
    } else {
      // Clamped, so that four large sizes cannot overflow; no run has 2^30 ranks.
      product = std::min<int64_t>(product * size[i], int64_t{1} << 30);
    }
  }
  if (inferred >= 0) {
    LWM_REQUIRE(ranks % product == 0, "mesh '", text, "': ", CountOf(ranks, "rank"),
                " cannot be divided into groups of ", product, "; start a multiple of ",
                CountOf(product, "rank"));
    size[inferred] = static_cast<int>(ranks / product);
  } else {
    LWM_REQUIRE(product == ranks, "mesh '", text, "' wants ", CountOf(product, "rank"), " but ",
                ranks, ranks == 1 ? " is" : " are", " running; start it with mpirun -np ", product,
                " or give one size as -1");
  }
  return {size[0], size[1], size[2], size[3]};
}

Mesh::Mesh(Communicator& world, const MeshShape& shape) : world_(world), shape_(shape) {
  LWM_REQUIRE(shape.ranks() == world.size(), "a mesh of ", shape.ranks(), " ranks over ",
              world.size(), "; the product of dp, fsdp, tp and sp must be the number of ranks");
  // sp varies fastest: the ranks of a ring are neighbours, which launchers place on one machine
  // first.
  int rest = world.rank();
  sp_rank_ = rest % shape.sp, rest /= shape.sp;
  tp_rank_ = rest % shape.tp, rest /= shape.tp;
  fsdp_rank_ = rest % shape.fsdp, rest /= shape.fsdp;
  dp_rank_ = rest;
  // Ranks of a group differ in its own axes only, so the colors number the ranks of all other axes.
  dp_ = world.Split((fsdp_rank_ * shape.tp + tp_rank_) * shape.sp + sp_rank_);
  tp_ = world.Split(data_rank() * shape.sp + sp_rank_);
  sp_ = world.Split(data_rank() * shape.tp + tp_rank_);
  shard_ = world.Split(dp_rank_ * shape.tp + tp_rank_);
  data_ = world.Split(tp_rank_);
}

}  // namespace lwm::dist
