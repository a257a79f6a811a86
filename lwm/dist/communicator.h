#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace lwm::dist {

// A non-blocking operation under way. Its buffers must stay alive and untouched until it is done.
// Move-only; the destructor waits. While an error unwinds the stack, all destructors together wait
// a few seconds at most: peers may never send, and main aborts them next.
class Request {
 public:
  struct State {
    virtual ~State() = default;
    virtual bool Test() = 0;  // progresses; true once done
    virtual void Wait() = 0;
  };
  Request() = default;  // already done
  explicit Request(std::unique_ptr<State> state) : state_(std::move(state)) {}
  Request(Request&&) = default;
  Request& operator=(Request&& other) {
    Wait();
    state_ = std::move(other.state_);
    return *this;
  }
  ~Request() {
    if (state_) state_->Wait();
  }

  // Gives the library time to move data; true once done. Call between tiles of compute.
  bool Test() {
    if (state_ && state_->Test()) state_.reset();
    return !state_;
  }
  void Wait() {
    if (state_) state_->Wait();
    state_.reset();
  }

 private:
  std::unique_ptr<State> state_;
};

// A group of ranks that exchange messages. Collectives must be called by all ranks of the group in
// the same order, from one thread at a time per process. Messages of any size (above 2 GiB too).
// f32 sums have one fixed order for a given group, so a repeated run gives the same bits.
// Failures of the library become Error(kInternal).
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Whether the processes of all ranks use the same generation of vector instructions
  // (base/instruction_set.h). Found when the group is made.
  virtual bool same_instructions() const = 0;

  // Point to point, non-blocking, matched by (peer, tag) in order; 0 <= tag < 1000.
  virtual Request StartSend(std::span<const std::byte> data, int to, int tag) = 0;
  virtual Request StartReceive(std::span<std::byte> data, int from, int tag) = 0;

  // receive = the send buffers of all ranks one after another, size() * send.size() bytes.
  virtual Request StartAllGather(std::span<const std::byte> send, std::span<std::byte> receive) = 0;
  // receive[i] = sum over ranks of send[rank() * n + i], n = receive.size(); send has size() * n.
  virtual Request StartReduceScatterSum(std::span<const float> send, std::span<float> receive) = 0;

  virtual void AllReduceSum(std::span<float> data) = 0;   // in place
  virtual void AllReduceSum(std::span<double> data) = 0;  // in place
  virtual void AllReduceMax(std::span<double> data) = 0;  // in place
  virtual void Broadcast(std::span<std::byte> data, int root) = 0;
  virtual void Barrier() = 0;

  // The ranks that pass the same color, ordered by their rank here. Collective.
  virtual std::unique_ptr<Communicator> Split(int color) = 0;
};

// communicator_mpi.cc or communicator_local.cc defines the functions below, CMake links one of
// them; MakeSelfCommunicator is in communicator_self.cc, which both builds share.

// All ranks that mpirun (or Slurm) started; a lone process without a launcher gets a group of one
// and MPI is not initialised. Call once per process.
std::unique_ptr<Communicator> MakeWorldCommunicator();

// A group of one: collectives are copies.
std::unique_ptr<Communicator> MakeSelfCommunicator();

// Ranks of this job on this machine, this one included.
int RanksOnThisNode();

// Ends every rank at once; for main() after an error on one rank, so that no peer waits forever.
[[noreturn]] void AbortAllRanks(int exit_code);

}  // namespace lwm::dist
