// The only file that knows MPI. Collectives that add or move much data are written here over
// point-to-point messages: their order of summation is then ours for every MPI library, they need
// little scratch memory, and their counts are not limited to 2^31.
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "lwm/base/core_contention.h"
#include "lwm/base/error.h"
#include "lwm/base/instruction_set.h"
#include "lwm/dist/communicator.h"
#include "lwm/dist/launcher.h"
#include "lwm/dist/mpi_version.h"

namespace lwm::dist {
namespace {

constexpr size_t kMessageBytes = size_t{1} << 30;   // longer messages travel in parts
constexpr size_t kSegmentFloats = size_t{1} << 18;  // of a reduction: 1 MiB in flight per message
constexpr size_t kSegmentsInFlight = 4;
constexpr size_t kGatherSumBytes = size_t{1} << 16;  // sums below this are gathered, then added
constexpr int kTags = 16384;                         // below MPI's guaranteed 32767
// Long enough for transfers whose peers are well, short beside the wait of a whole job.
constexpr auto kUnwindPatience = std::chrono::seconds(2);

// Codes arrive here because every communicator is set to MPI_ERRORS_RETURN; MPI's default aborts
// before anyone can say what failed.
void CheckMpi(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error(ErrorCode::kInternal, Cat(what, ": ", text));
}

// Calls body(offset, count) over [0, size) in parts that an int counts.
template <class Body>
void ForEachPart(size_t size, size_t part, const Body& body) {
  for (size_t offset = 0; offset < size; offset += part) {
    body(offset, static_cast<int>(std::min(part, size - offset)));
  }
}

// Waits for other ranks. On contended cores it sleeps after a short spin, so that other programs
// can run; elsewhere only a long wait sleeps, for about a hundredth of its length so far. No
// time-out: while rank 0 writes or evaluates, the others wait for minutes, and a dead rank looks no
// different from here. The launcher ends the job when a process dies; an error is ended by
// AbortAllRanks.
template <class Done>
void WaitUntil(const Done& done) {
  using std::chrono::microseconds;
  constexpr auto kSpin = microseconds(50), kLong = microseconds(20000);
  constexpr auto kNap = microseconds(50), kLongestNap = microseconds(2000);
  const auto begin = std::chrono::steady_clock::now();
  while (!done()) {
    std::this_thread::yield();
    const auto waited = std::chrono::steady_clock::now() - begin;
    if (waited > kLong) {
      std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(waited / 100, kLongestNap));
    } else if (waited > kSpin && CoresAreContended()) {
      std::this_thread::sleep_for(kNap);
    }
  }
}

void WaitFor(MPI_Request& request, const char* what) {
  WaitUntil([&] {
    int done = 0;
    CheckMpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), what);
    return done != 0;
  });
}

// When an error that unwinds this rank has waited long enough for all that is under way together:
// its peers may never send, and the program is about to abort them.
std::optional<std::chrono::steady_clock::time_point> unwind_deadline;

// Waits for `done`, or until the deadline. From then on waits do not call MPI any more: it would
// write into buffers of transfers that were given up. For destructors: an error of MPI here only
// ends the waiting, since the error that unwinds is the one to report.
template <class Done>
void WaitWhileUnwinding(const Done& done) noexcept {
  using Clock = std::chrono::steady_clock;
  if (!unwind_deadline) unwind_deadline = Clock::now() + kUnwindPatience;
  try {
    while (Clock::now() < *unwind_deadline && !done()) std::this_thread::yield();
  } catch (const Error&) {
    unwind_deadline = Clock::now();
  }
}

// Whether a wait may give up. A wait that may not is after the last error was dealt with.
bool IsUnwinding() {
  if (std::uncaught_exceptions() > 0) return true;
  unwind_deadline.reset();
  return false;
}

// Several MPI requests that are done together.
class Transfers : public Request::State {
 public:
  void Send(MPI_Comm comm, std::span<const std::byte> data, int to, int tag) {
    ForEachPart(data.size(), kMessageBytes, [&](size_t offset, int count) {
      CheckMpi(MPI_Isend(data.data() + offset, count, MPI_BYTE, to, tag, comm, &Add()),
               "MPI_Isend");
    });
  }
  void Receive(MPI_Comm comm, std::span<std::byte> data, int from, int tag) {
    ForEachPart(data.size(), kMessageBytes, [&](size_t offset, int count) {
      CheckMpi(MPI_Irecv(data.data() + offset, count, MPI_BYTE, from, tag, comm, &Add()),
               "MPI_Irecv");
    });
  }
  bool Test() override {
    int done = 0;
    CheckMpi(MPI_Testall(Count(), requests_.data(), &done, MPI_STATUSES_IGNORE), "MPI_Testall");
    return done != 0;
  }
  void Wait() override {
    if (IsUnwinding()) return WaitWhileUnwinding([this] { return Test(); });
    WaitUntil([this] { return Test(); });
  }

 private:
  int Count() const { return static_cast<int>(requests_.size()); }
  MPI_Request& Add() { return requests_.emplace_back(MPI_REQUEST_NULL); }

  std::vector<MPI_Request> requests_;
};

// The slice of n elements that rank `part` of `parts` owns in an all-reduce.
size_t SliceBegin(size_t n, int part, int parts) {
  return n / static_cast<size_t>(parts) * static_cast<size_t>(part) +
         std::min(n % static_cast<size_t>(parts), static_cast<size_t>(part));
}

struct Group {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  int Shifted(int by) const { return (rank + by + size) % size; }
};

// receive = the sum of all ranks' slices for this rank, in the fixed order own, rank - 1, rank - 2
// and so on. Slices travel in segments, a few at a time, so scratch memory does not grow with them.
//
// In step s a rank sends to rank + s and receives from rank - s, so a rank sends to each other one
// in one step only. All segments carry one tag: MPI keeps messages of one sender in order, so the
// k-th segment sent is the k-th received. Segments are posted, added and replaced only inside Test
// and Wait; no thread does it in between.
template <class Real>
class ReduceScatter : public Request::State {
 public:
  // slice_begin_P: size + 1 offsets into send.
  ReduceScatter(const Group& group, int tag, std::span<const Real> send, std::span<Real> receive,
                std::vector<size_t> slice_begin_P)
      : group_(group),
        tag_(tag),
        send_(send),
        receive_(receive),
        begin_P_(std::move(slice_begin_P)) {
    const std::span<const Real> own = Slice(group_.rank);
    LWM_CHECK(own.size() == receive.size(), "reduce-scatter of ", own.size(), " into ",
              receive.size());
    if (!own.empty()) std::memmove(receive_.data(), own.data(), own.size_bytes());
    for (int step = 1; step < group_.size; ++step) {
      AddMessages(sends_, step, Slice(group_.Shifted(step)).size());
      AddMessages(receives_, step, receive_.size());
    }
    scratch_.resize(std::min(receives_.size(), kSegmentsInFlight) *
                    std::min(receive_.size(), kSegmentFloats));
    Advance();
  }

  bool Test() override {
    Advance();
    // Own sends count too: until they are done the caller must not write into `send`.
    return next_summed_ == receives_.size() && next_sent_ == sends_.size() && in_flight_.empty();
  }
  void Wait() override {
    if (IsUnwinding()) return WaitWhileUnwinding([this] { return Test(); });
    WaitUntil([this] { return Test(); });
  }

 private:
  struct Message {
    int step;
    size_t offset, count;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  std::span<const Real> Slice(int rank) const {
    return send_.subspan(begin_P_[rank], begin_P_[rank + 1] - begin_P_[rank]);
  }
  static void AddMessages(std::vector<Message>& messages, int step, size_t size) {
    ForEachPart(size, kSegmentFloats, [&](size_t offset, int count) {
      messages.push_back({step, offset, static_cast<size_t>(count)});
    });
  }
  Real* Scratch(size_t message) {
    return scratch_.data() +
           message % kSegmentsInFlight * std::min(receive_.size(), kSegmentFloats);
  }

  // Posts what fits in flight and adds what has arrived, in order.
  void Advance() {
    while (!in_flight_.empty() && Done(in_flight_.front())) in_flight_.pop_front();
    while (next_sent_ < sends_.size() && in_flight_.size() < kSegmentsInFlight) PostSend();
    // In the order of posting, not of arrival: the bits of the sum must not depend on timing.
    while (next_summed_ < next_received_ && Done(receives_[next_summed_].request)) {
      const Message& message = receives_[next_summed_];
      const Real* from = Scratch(next_summed_);
      Real* to = receive_.data() + message.offset;
      for (size_t i = 0; i < message.count; ++i) to[i] += from[i];
      ++next_summed_;
    }
    while (next_received_ < receives_.size() && next_received_ - next_summed_ < kSegmentsInFlight) {
      PostReceive();
    }
  }
  void PostSend() {
    const Message& message = sends_[next_sent_++];
    const int to = group_.Shifted(message.step);
    CheckMpi(
        MPI_Isend(Slice(to).data() + message.offset, static_cast<int>(message.count * sizeof(Real)),
                  MPI_BYTE, to, tag_, group_.comm, &in_flight_.emplace_back(MPI_REQUEST_NULL)),
        "MPI_Isend");
  }
  void PostReceive() {
    Message& message = receives_[next_received_];
    CheckMpi(
        MPI_Irecv(Scratch(next_received_), static_cast<int>(message.count * sizeof(Real)), MPI_BYTE,
                  group_.Shifted(-message.step), tag_, group_.comm, &message.request),
        "MPI_Irecv");
    ++next_received_;
  }
  static bool Done(MPI_Request& request) {
    int done = 0;
    CheckMpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    return done != 0;
  }

  Group group_;
  int tag_;
  std::span<const Real> send_;
  std::span<Real> receive_;
  std::vector<size_t> begin_P_;
  std::vector<Message> sends_, receives_;
  std::deque<MPI_Request> in_flight_;  // sends
  std::vector<Real> scratch_;
  size_t next_sent_ = 0, next_received_ = 0, next_summed_ = 0;
};

bool MpiIsUp() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized && !finalized;
}

class MpiCommunicator : public Communicator {
 public:
  // Takes over `comm` and owns it; collective (a second context keeps collectives apart from the
  // caller's tags).
  explicit MpiCommunicator(MPI_Comm comm) {
    user_.comm = comm;
    CheckMpi(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    CheckMpi(MPI_Comm_rank(comm, &user_.rank), "MPI_Comm_rank");
    CheckMpi(MPI_Comm_size(comm, &user_.size), "MPI_Comm_size");
    own_ = user_;
    CheckMpi(MPI_Comm_dup(comm, &own_.comm), "MPI_Comm_dup");
    CheckMpi(MPI_Comm_set_errhandler(own_.comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    same_instructions_ = FindSameInstructions();
  }
  ~MpiCommunicator() override {
    // Freeing is collective: not when an error unwinds this rank alone.
    if (std::uncaught_exceptions() > 0 || !MpiIsUp()) return;
    MPI_Comm_free(&own_.comm);
    MPI_Comm_free(&user_.comm);
  }

  int rank() const override { return user_.rank; }
  int size() const override { return user_.size; }
  bool same_instructions() const override { return same_instructions_; }

  Request StartSend(std::span<const std::byte> data, int to, int tag) override {
    CheckPeer(to, tag);
    auto transfers = std::make_unique<Transfers>();
    transfers->Send(user_.comm, data, to, tag);
    return Request(std::move(transfers));
  }
  Request StartReceive(std::span<std::byte> data, int from, int tag) override {
    CheckPeer(from, tag);
    auto transfers = std::make_unique<Transfers>();
    transfers->Receive(user_.comm, data, from, tag);
    return Request(std::move(transfers));
  }

  Request StartAllGather(std::span<const std::byte> send, std::span<std::byte> receive) override {
    LWM_CHECK(receive.size() == send.size() * static_cast<size_t>(size()), "all-gather of ",
              send.size(), " bytes into ", receive.size());
    std::vector<size_t> begin_P;
    for (int r = 0; r <= size(); ++r) begin_P.push_back(send.size() * static_cast<size_t>(r));
    return StartGatherSlices(send, receive, begin_P);
  }
  Request StartReduceScatterSum(std::span<const float> send, std::span<float> receive) override {
    LWM_CHECK(send.size() == receive.size() * static_cast<size_t>(size()), "reduce-scatter of ",
              send.size(), " into ", receive.size());
    std::vector<size_t> begin_P;
    for (int r = 0; r <= size(); ++r) begin_P.push_back(receive.size() * static_cast<size_t>(r));
    return Request(std::make_unique<ReduceScatter<float>>(own_, NextTag(), send, receive, begin_P));
  }

  void AllReduceSum(std::span<float> data) override { Sum(data); }
  void AllReduceSum(std::span<double> data) override { Sum(data); }
  void AllReduceMax(std::span<double> data) override {
    ForEachPart(data.size(), kMessageBytes / sizeof(double), [&](size_t offset, int count) {
      MPI_Request request = MPI_REQUEST_NULL;
      CheckMpi(MPI_Iallreduce(MPI_IN_PLACE, data.data() + offset, count, MPI_DOUBLE, MPI_MAX,
                              own_.comm, &request),
               "MPI_Iallreduce");
      WaitFor(request, "MPI_Iallreduce");
    });
  }
  void Broadcast(std::span<std::byte> data, int root) override {
    CheckPeer(root, 0);
    ForEachPart(data.size(), kMessageBytes, [&](size_t offset, int count) {
      MPI_Request request = MPI_REQUEST_NULL;
      CheckMpi(MPI_Ibcast(data.data() + offset, count, MPI_BYTE, root, own_.comm, &request),
               "MPI_Ibcast");
      WaitFor(request, "MPI_Ibcast");
    });
  }
  void Barrier() override {
    MPI_Request request = MPI_REQUEST_NULL;
    CheckMpi(MPI_Ibarrier(own_.comm, &request), "MPI_Ibarrier");
    WaitFor(request, "MPI_Ibarrier");
  }

  std::unique_ptr<Communicator> Split(int color) override {
    LWM_CHECK(color >= 0, "split with color ", color);
    MPI_Comm part = MPI_COMM_NULL;
    CheckMpi(MPI_Comm_split(own_.comm, color, rank(), &part), "MPI_Comm_split");
    return std::make_unique<MpiCommunicator>(part);
  }

 private:
  void CheckPeer(int peer, int tag) const {
    LWM_CHECK(peer >= 0 && peer < size() && tag >= 0 && tag < 1000, "message with rank ", peer,
              " of ", size(), ", tag ", tag);
  }
  // The newest and the oldest generation in one reduction: the oldest as the largest of the
  // negatives.
  bool FindSameInstructions() {
    const double generation = AmxAvailable() ? 2 : Avx512Bf16Available() ? 1 : 0;
    double newest_and_oldest[] = {generation, -generation};
    AllReduceMax(newest_and_oldest);
    return newest_and_oldest[0] == -newest_and_oldest[1];
  }
  // Collectives are called in one order by all ranks, so the tags agree without communication. A
  // tag returns after kTags collectives; by then its first use is long over.
  int NextTag() { return next_tag_++ % kTags; }

  // Rank r's `send` goes to bytes [begin_P[r], begin_P[r + 1]) of everyone's `receive`; it may be
  // there already.
  Request StartGatherSlices(std::span<const std::byte> send, std::span<std::byte> receive,
                            const std::vector<size_t>& begin_P) {
    std::byte* own = receive.data() + begin_P[static_cast<size_t>(rank())];
    if (!send.empty() && own != send.data()) std::memmove(own, send.data(), send.size());
    auto transfers = std::make_unique<Transfers>();
    const int tag = NextTag();
    for (int step = 1; step < size(); ++step) {
      // Each rank starts with its neighbour: were all to start with rank 0, they would queue there.
      const int from = own_.Shifted(-step);
      transfers->Receive(
          own_.comm, receive.subspan(begin_P[from], begin_P[from + 1] - begin_P[from]), from, tag);
      transfers->Send(own_.comm, send, own_.Shifted(step), tag);
    }
    return Request(std::move(transfers));
  }

  template <class Real>
  void Sum(std::span<Real> data) {
    // Small sums are bound by latency: one exchange. Large ones by bytes: a reduce-scatter, then a
    // gather, in which 2 (P - 1) / P of the data leave each rank.
    if (data.size_bytes() <= kGatherSumBytes) {
      SumGathered(data);
      return;
    }
    std::vector<size_t> begin_P, byte_begin_P;
    for (int r = 0; r <= size(); ++r) {
      begin_P.push_back(SliceBegin(data.size(), r, size()));
      byte_begin_P.push_back(begin_P.back() * sizeof(Real));
    }
    const std::span<Real> own =
        data.subspan(begin_P[rank()], begin_P[rank() + 1] - begin_P[rank()]);
    // In place: the sum is formed in the own slice, which is never sent before it is complete; the
    // other slices are written only by the gather, when all sends of them are done.
    Request(std::make_unique<ReduceScatter<Real>>(own_, NextTag(), data, own, begin_P)).Wait();
    StartGatherSlices(std::as_bytes(own), std::as_writable_bytes(data), byte_begin_P).Wait();
  }
  // Everyone adds everyone's in rank order: one exchange, the same bits everywhere.
  template <class Real>
  void SumGathered(std::span<Real> data) {
    std::vector<Real> all(data.size() * static_cast<size_t>(size()));
    const int bytes = static_cast<int>(data.size_bytes());
    MPI_Request request = MPI_REQUEST_NULL;
    CheckMpi(MPI_Iallgather(data.data(), bytes, MPI_BYTE, all.data(), bytes, MPI_BYTE, own_.comm,
                            &request),
             "MPI_Iallgather");
    WaitFor(request, "MPI_Iallgather");
    for (size_t i = 0; i < data.size(); ++i) {
      Real sum = all[i];
      for (size_t j = i + data.size(); j < all.size(); j += data.size()) sum += all[j];
      data[i] = sum;
    }
  }

  Group user_, own_;
  bool same_instructions_ = true;
  int next_tag_ = 0;
};

int ranks_on_node = 1;

// The world: MPI lives as long as it does.
class MpiWorld : public Communicator {
 public:
  MpiWorld() {
    LWM_CHECK(!MpiIsUp(), "the world communicator was made twice");
    YieldWhenCoresAreFull();
    // Calls come from one thread at a time (communicator.h).
    int provided = 0;
    CheckMpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided),
             "MPI_Init_thread");
    LWM_CHECK(provided >= MPI_THREAD_FUNNELED, "this MPI supports no threads at all");
    MPI_Comm world = MPI_COMM_NULL, node = MPI_COMM_NULL;
    CheckMpi(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup");
    all_ = std::make_unique<MpiCommunicator>(world);
    CheckMpi(MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
             "MPI_Comm_split_type");
    CheckMpi(MPI_Comm_size(node, &ranks_on_node), "MPI_Comm_size");
    MPI_Comm_free(&node);
  }
  ~MpiWorld() override {
    // MPI_Finalize waits for all ranks; after an error here they may wait for this one, and main
    // calls AbortAllRanks.
    if (std::uncaught_exceptions() > 0) return;
    all_.reset();
    MPI_Finalize();
  }

  int rank() const override { return all_->rank(); }
  int size() const override { return all_->size(); }
  bool same_instructions() const override { return all_->same_instructions(); }
  Request StartSend(std::span<const std::byte> data, int to, int tag) override {
    return all_->StartSend(data, to, tag);
  }
  Request StartReceive(std::span<std::byte> data, int from, int tag) override {
    return all_->StartReceive(data, from, tag);
  }
  Request StartAllGather(std::span<const std::byte> send, std::span<std::byte> receive) override {
    return all_->StartAllGather(send, receive);
  }
  Request StartReduceScatterSum(std::span<const float> send, std::span<float> receive) override {
    return all_->StartReduceScatterSum(send, receive);
  }
  void AllReduceSum(std::span<float> data) override { all_->AllReduceSum(data); }
  void AllReduceSum(std::span<double> data) override { all_->AllReduceSum(data); }
  void AllReduceMax(std::span<double> data) override { all_->AllReduceMax(data); }
  void Broadcast(std::span<std::byte> data, int root) override { all_->Broadcast(data, root); }
  void Barrier() override { all_->Barrier(); }
  std::unique_ptr<Communicator> Split(int color) override { return all_->Split(color); }

 private:
  // Open MPI spins while it waits. Where ranks fill the cores that starves whoever has work.
  static void YieldWhenCoresAreFull() {
    if (LaunchedRanksOnThisNode() >= MachineCores()) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  }

  std::unique_ptr<MpiCommunicator> all_;
};

}  // namespace

std::unique_ptr<Communicator> MakeWorldCommunicator() {
  if (!StartedByLauncher()) return MakeSelfCommunicator();
  return std::make_unique<MpiWorld>();
}

int RanksOnThisNode() { return ranks_on_node; }

std::string MpiVersion() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  CheckMpi(MPI_Get_library_version(text, &length), "MPI_Get_library_version");
  // Open MPI: "Open MPI v4.1.4, package: ..."; MPICH: one property per line.
  return std::string(text).substr(0, std::string(text).find_first_of(",\n"));
}

void AbortAllRanks(int exit_code) {
  std::fflush(nullptr);
  if (MpiIsUp()) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);  // a launcher ends the other ranks when one fails before MPI is up
}

}  // namespace lwm::dist
