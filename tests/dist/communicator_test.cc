#include "lwm/dist/communicator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/random.h"
#include "lwm/dist/mesh.h"
#include "tests/dist/mpi_main.h"

namespace lwm::dist {
namespace {

using testing::World;

std::vector<float> RandomFloats(size_t n, uint64_t key) {
  Random random(key);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(random.Uniform() * 2 - 1);
  return values;
}

// What rank `rank` contributes to a collective.
std::vector<float> Contribution(size_t n, int rank) {
  return RandomFloats(n, DeriveKey(n, static_cast<uint64_t>(rank)));
}

TEST(CommunicatorTest, WorldHasTheRanksThatMpirunStarted) {
  const char* size = std::getenv("OMPI_COMM_WORLD_SIZE");
  EXPECT_EQ(World().size(), size ? std::atoi(size) : 1);
  EXPECT_LT(World().rank(), World().size());
  EXPECT_GE(RanksOnThisNode(), 1);
  const char* local = std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
  EXPECT_EQ(RanksOnThisNode(), local ? std::atoi(local) : 1);
}

TEST(CommunicatorTest, RingOfMessagesArrivesInOrderWhilePolled) {
  const int next = (World().rank() + 1) % World().size();
  const int previous = (World().rank() + World().size() - 1) % World().size();
  for (const size_t n : {size_t{0}, size_t{1}, size_t{1000}, size_t{3} << 20}) {
    const auto first = Contribution(n, World().rank()),
               second = Contribution(n, World().rank() + 9);
    std::vector<float> got_first(n), got_second(n), want_first = Contribution(n, previous),
                                                    want_second = Contribution(n, previous + 9);
    Request a = World().StartReceive(std::as_writable_bytes(std::span(got_first)), previous, 3);
    Request b = World().StartReceive(std::as_writable_bytes(std::span(got_second)), previous, 3);
    Request c = World().StartSend(std::as_bytes(std::span(first)), next, 3);
    Request d = World().StartSend(std::as_bytes(std::span(second)), next, 3);
    while (!(a.Test() & b.Test() & c.Test() & d.Test())) {
    }
    EXPECT_EQ(got_first, want_first);
    EXPECT_EQ(got_second, want_second);
  }
}

// Throws while `count` messages of the next rank are awaited that it sends `later` at the earliest;
// returns how many seconds unwinding took.
double UnwindWhileReceiving(std::vector<std::vector<float>>& got, bool later) {
  const int next = (World().rank() + 1) % World().size();
  const int previous = (World().rank() + World().size() - 1) % World().size();
  const std::vector<float> sent = Contribution(100, World().rank());
  const auto send = [&] {
    for (size_t i = 0; i < got.size(); ++i)
      World().StartSend(std::as_bytes(std::span(sent)), previous, 7).Wait();
  };
  const auto begin = std::chrono::steady_clock::now();
  try {
    std::vector<Request> requests;
    for (std::vector<float>& message : got)
      requests.push_back(World().StartReceive(std::as_writable_bytes(std::span(message)), next, 7));
    if (!later) send();
    throw Error(ErrorCode::kInternal, "this rank failed");
  } catch (const Error&) {
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (later) send();
  World().Barrier();
  return seconds.count();
}

TEST(CommunicatorTest, UnwindingWaitsOnceForEverythingUnderWay) {
  if (World().size() == 1) GTEST_SKIP() << "a rank alone waits for nobody";
  std::vector<std::vector<float>> never(4, std::vector<float>(100));
  const double seconds = UnwindWhileReceiving(never, true);
  EXPECT_GT(seconds, 1);
  EXPECT_LT(seconds, 4);  // not 2 s for each
  // What comes in time is still taken, and so it is after the next error.
  std::vector<std::vector<float>> got(4, std::vector<float>(100));
  EXPECT_LT(UnwindWhileReceiving(got, false), 1.9);
  const auto want = Contribution(100, (World().rank() + 1) % World().size());
  for (const std::vector<float>& message : got) EXPECT_EQ(message, want);
}

TEST(CommunicatorTest, AllGatherPutsRanksOneAfterAnother) {
  for (const size_t n : {size_t{0}, size_t{1}, size_t{999}, size_t{1} << 19}) {
    const auto send = Contribution(n, World().rank());
    std::vector<float> receive(n * static_cast<size_t>(World().size())), want;
    for (int r = 0; r < World().size(); ++r) {
      const auto part = Contribution(n, r);
      want.insert(want.end(), part.begin(), part.end());
    }
    World()
        .StartAllGather(std::as_bytes(std::span(send)), std::as_writable_bytes(std::span(receive)))
        .Wait();
    EXPECT_EQ(receive, want);
  }
}

// Sums of several gathers and reductions under way at once must not mix.
TEST(CommunicatorTest, ReduceScatterAddsSlicesAndRepeatsItsBits) {
  const auto size = static_cast<size_t>(World().size()), rank = static_cast<size_t>(World().rank());
  for (const size_t n : {size_t{1}, size_t{1001}, (size_t{5} << 18) + 7}) {
    const auto send = Contribution(n * size, World().rank());
    std::vector<double> want(n, 0);
    for (int r = 0; r < World().size(); ++r) {
      const auto part = Contribution(n * size, r);
      for (size_t i = 0; i < n; ++i) want[i] += part[rank * n + i];
    }
    std::vector<float> got(n), again(n), gathered(size);
    const float mine = static_cast<float>(rank);
    Request a = World().StartReduceScatterSum(send, got);
    Request b = World().StartReduceScatterSum(send, again);
    Request c = World().StartAllGather(std::as_bytes(std::span(&mine, 1)),
                                       std::as_writable_bytes(std::span(gathered)));
    while (!(b.Test() & c.Test())) {
    }
    a.Wait();
    EXPECT_EQ(got, again);
    for (size_t i = 0; i < n; ++i) ASSERT_NEAR(got[i], want[i], 4e-7 * World().size()) << i;
    for (size_t r = 0; r < size; ++r) EXPECT_EQ(gathered[r], static_cast<float>(r));
  }
}

template <class Real>
void ExpectAllReduceSums(size_t n, double tolerance) {
  std::vector<Real> data, sum(n, 0), again;
  for (int r = World().size() - 1; r >= 0; --r) {
    const auto part = Contribution(n, r);
    for (size_t i = 0; i < n; ++i) sum[i] += part[i];
    if (r == World().rank()) data.assign(part.begin(), part.end());
  }
  again = data;
  World().AllReduceSum(std::span(data));
  World().AllReduceSum(std::span(again));
  EXPECT_EQ(data, again);
  for (size_t i = 0; i < n; ++i) ASSERT_NEAR(data[i], sum[i], tolerance) << i;
  // The same bits on all ranks.
  std::vector<Real> of_root = data;
  World().Broadcast(std::as_writable_bytes(std::span(of_root)), World().size() - 1);
  EXPECT_EQ(data, of_root);
}

TEST(CommunicatorTest, AllReduceGivesAllRanksTheSameSum) {
  for (const size_t n :
       {size_t{0}, size_t{1}, size_t{3}, size_t{16384}, size_t{16387}, (size_t{1} << 20) + 5}) {
    ExpectAllReduceSums<float>(n, 4e-7 * World().size());
    ExpectAllReduceSums<double>(n, 1e-15 * World().size());
  }
}

TEST(CommunicatorTest, AllReduceMaxTakesTheLargest) {
  std::vector<double> data = {static_cast<double>(World().rank()), -1.0 - World().rank()};
  World().AllReduceMax(std::span(data));
  EXPECT_EQ(data, (std::vector<double>{World().size() - 1.0, -1.0}));
}

TEST(CommunicatorTest, SplitKeepsTheOrderOfRanks) {
  const auto half = World().Split(World().rank() % 2);
  EXPECT_EQ(half->rank(), World().rank() / 2);
  EXPECT_EQ(half->size(), (World().size() + 1 - World().rank() % 2) / 2);
  double sum = World().rank();
  half->AllReduceSum(std::span(&sum, 1));
  double want = 0;
  for (int r = World().rank() % 2; r < World().size(); r += 2) want += r;
  EXPECT_EQ(sum, want);
  World().Barrier();
}

// Every shape over the running ranks: sizes, orders and membership of the groups.
TEST(MeshTest, GroupsHoldTheRanksOfTheirAxes) {
  const int n = World().size();
  for (int dp = 1; dp <= n; ++dp) {
    for (int fsdp = 1; dp * fsdp <= n; ++fsdp) {
      for (int tp = 1; dp * fsdp * tp <= n; ++tp) {
        const MeshShape shape{dp, fsdp, tp, n / (dp * fsdp * tp)};
        if (shape.ranks() != n) continue;
        const Mesh mesh(World(), shape);
        EXPECT_EQ(((mesh.dp_rank() * fsdp + mesh.fsdp_rank()) * tp + mesh.tp_rank()) * shape.sp +
                      mesh.sp_rank(),
                  World().rank());
        EXPECT_EQ(mesh.dp().rank(), mesh.dp_rank());
        EXPECT_EQ(mesh.tp().rank(), mesh.tp_rank());
        EXPECT_EQ(mesh.sp().rank(), mesh.sp_rank());
        EXPECT_EQ(mesh.shard().rank(), mesh.fsdp_rank() * shape.sp + mesh.sp_rank());
        EXPECT_EQ(mesh.data().rank(), mesh.data_rank() * shape.sp + mesh.sp_rank());
        EXPECT_EQ(mesh.dp().size(), dp);
        EXPECT_EQ(mesh.tp().size(), tp);
        EXPECT_EQ(mesh.sp().size(), shape.sp);
        EXPECT_EQ(mesh.shard().size(), fsdp * shape.sp);
        EXPECT_EQ(mesh.data().size(), dp * fsdp * shape.sp);
        double tp_ranks = mesh.tp_rank();  // members of a data group share theirs
        mesh.data().AllReduceSum(std::span(&tp_ranks, 1));
        EXPECT_EQ(tp_ranks, static_cast<double>(mesh.tp_rank()) * mesh.data().size());
      }
    }
  }
}

}  // namespace
}  // namespace lwm::dist
