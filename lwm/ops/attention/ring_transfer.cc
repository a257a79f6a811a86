#include "lwm/ops/attention/ring_transfer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/round_up.h"
#include "lwm/ops/scratch_memory.h"

namespace lwm::ops {
namespace {

// Two tags: bundles and sums are under way between the same ranks at the same time. Messages of one
// tag arrive in the order in which they were sent, so hops need no tags of their own.
constexpr int kBundleTag = 701, kSumTag = 702;
constexpr int64_t kAlignment = 64;  // bytes: every tensor of a bundle starts on a cache line

int NextRank(const dist::Communicator& group) { return (group.rank() + 1) % group.size(); }
int PreviousRank(const dist::Communicator& group) {
  return (group.rank() + group.size() - 1) % group.size();
}
size_t Owner(const dist::Communicator& group, int hop) {
  return static_cast<size_t>((group.rank() + group.size() - hop) % group.size());
}

std::span<std::byte> Bytes(const at::Tensor& x) {
  return {static_cast<std::byte*>(x.data_ptr()), x.nbytes()};
}

std::vector<int64_t> Shape(const CirculatedTensor& traveller, int64_t slots) {
  std::vector<int64_t> shape = traveller.own.sizes().vec();
  shape[static_cast<size_t>(traveller.slot_dim)] = slots;
  return shape;
}

int64_t AlignedBytes(const CirculatedTensor& traveller, int64_t slots) {
  int64_t bytes = static_cast<int64_t>(traveller.own.element_size());
  for (const int64_t size : Shape(traveller, slots)) bytes *= size;
  return RoundUp(bytes, kAlignment);
}

int64_t BundleBytes(const std::vector<CirculatedTensor>& tensors, int64_t slots) {
  int64_t bytes = 0;
  for (const CirculatedTensor& traveller : tensors) bytes += AlignedBytes(traveller, slots);
  return bytes;
}

int64_t MostSlots(const std::vector<SlotRange>& slots_P) {
  int64_t most = 0;
  for (const SlotRange& slots : slots_P) most = std::max(most, slots.count);
  return most;
}

// Contiguous tensors for `slots` slots, one after another in `bytes`: buffers have the size of the
// largest bundle, messages the size of their own.
std::vector<at::Tensor> Views(const at::Tensor& bytes, const std::vector<CirculatedTensor>& tensors,
                              int64_t slots) {
  std::vector<at::Tensor> views;
  int64_t offset = 0;
  for (const CirculatedTensor& traveller : tensors) {
    const std::vector<int64_t> shape = Shape(traveller, slots);
    const int64_t aligned = AlignedBytes(traveller, slots);
    const at::Tensor room = bytes.narrow(0, offset, aligned).view(traveller.own.scalar_type());
    views.push_back(room.narrow(0, 0, c10::multiply_integers(shape)).view(shape));
    offset += aligned;
  }
  return views;
}

// Waits explicitly: a destructor could not report failure.
void WaitForAll(std::vector<dist::Request>& requests) {
  for (dist::Request& request : requests) request.Wait();
  requests.clear();
}

at::Tensor Narrow(const CirculatedTensor& traveller, const SlotRange& slots) {
  return traveller.own.narrow(traveller.slot_dim, slots.first, slots.count);
}

}  // namespace

TravellingBundle::TravellingBundle(dist::Communicator& group, std::vector<CirculatedTensor> own,
                                   std::vector<SlotRange> slots_P)
    : group_(group), own_(std::move(own)), slots_P_(std::move(slots_P)) {
  for (const CirculatedTensor& traveller : own_) now_.push_back(traveller.own);
  if (group.size() == 1) return;
  for (const CirculatedTensor& traveller : own_) {
    sent_.push_back(Narrow(traveller, slots_P_[Owner(group_, 0)]).contiguous());
  }
}

// Two buffers by turns, of the largest bundle: one is read while the other receives. Scratch
// memory, so that the next layer's pass may reuse the same pages.
std::vector<at::Tensor> TravellingBundle::Buffer(int hop) {
  at::Tensor& bytes = bytes_[hop % 2];
  if (!bytes.defined()) bytes = ScratchTensor({BundleBytes(own_, MostSlots(slots_P_))}, at::kByte);
  return Views(bytes, own_, slots_P_[Owner(group_, hop)].count);
}

// The schedule of a hop: wait for this hop's bundle, post the receive of the next one and the send
// of this one, then return, so that both run while the caller computes. Receives are posted first:
// a message that meets its receive needs no intermediate copy.
const std::vector<at::Tensor>& TravellingBundle::Arrive(int hop) {
  WaitForAll(receives_);
  // The buffer of the bundle sent last is the one that the next bundle arrives in.
  WaitForAll(sends_);
  if (hop > 0) {
    now_ = std::exchange(next_, {});
    sent_ = now_;
  }
  // The last bundle ends here: the rank after this one is its owner.
  if (hop + 1 == group_.size()) return now_;
  next_ = Buffer(hop + 1);
  for (const at::Tensor& x : next_) {
    if (x.numel() == 0) continue;
    receives_.push_back(group_.StartReceive(Bytes(x), PreviousRank(group_), kBundleTag));
  }
  for (const at::Tensor& x : sent_) {
    if (x.numel() == 0) continue;
    sends_.push_back(group_.StartSend(Bytes(x), NextRank(group_), kBundleTag));
  }
  return now_;
}

// Tests every request, even when one is not done: MPI may move data only inside its calls.
const std::vector<at::Tensor>* TravellingBundle::Next() {
  bool arrived = !next_.empty();
  for (dist::Request& request : receives_) arrived = request.Test() && arrived;
  for (dist::Request& request : sends_) request.Test();
  return arrived ? &next_ : nullptr;
}

TravellingSum::TravellingSum(dist::Communicator& group, std::vector<CirculatedTensor> own,
                             std::vector<SlotRange> slots_P)
    : group_(group), tensors_(std::move(own)), slots_P_(std::move(slots_P)) {
  for (const CirculatedTensor& traveller : tensors_) {
    LWM_CHECK(traveller.own.scalar_type() == at::kFloat && traveller.own.is_contiguous(),
              "a travelling sum is f32");
    own_.push_back(traveller.own);
  }
}

int64_t TravellingSum::Numbers(int hop) const {
  const int64_t bytes = BundleBytes(tensors_, slots_P_[Owner(group_, hop)].count);
  return bytes / static_cast<int64_t>(sizeof(float));
}

at::Tensor TravellingSum::Buffer() const {
  const int64_t bytes = BundleBytes(tensors_, MostSlots(slots_P_));
  return ScratchTensor({bytes / static_cast<int64_t>(sizeof(float))}, at::kFloat);
}

// Parts alternate between two buffers: one is filled while the part before is being sent.
std::vector<at::Tensor>& TravellingSum::Begin(int hop) {
  if (hop == 0) return own_;
  sends_[hop % 2].Wait();
  at::Tensor& flat = flat_[hop % 2];
  if (!flat.defined()) flat = Buffer();
  parts_[hop % 2] = Views(flat.view(at::kByte), tensors_, slots_P_[Owner(group_, hop)].count);
  return parts_[hop % 2];
}

// This rank's part of the owner's gradient is in flat_. From hop 2 on the rank before has a sum for
// the same owner: at hop 1 it was the owner itself, which keeps its part. The receive for the next
// hop is posted last, when arrived_ is free again.
void TravellingSum::End(int hop) {
  if (hop == 0) return;
  const at::Tensor part = flat_[hop % 2].narrow(0, 0, Numbers(hop));
  if (hop >= 2) {
    receive_.Wait();
    if (part.numel() > 0) part.add_(arrived_.narrow(0, 0, part.numel()));
  }
  if (part.numel() > 0) {
    sends_[hop % 2] = group_.StartSend(Bytes(part), NextRank(group_), kSumTag);
  }
  if (hop + 1 < group_.size()) Receive(hop + 1);
}

// The last rank to hold this rank's bundle is the one before it, which now sends the complete sum.
void TravellingSum::Finish() {
  if (group_.size() > 1) Receive(0);
  receive_.Wait();
  const SlotRange& slots = slots_P_[Owner(group_, 0)];
  if (group_.size() > 1 && slots.count > 0) {
    const auto added = Views(arrived_.view(at::kByte), tensors_, slots.count);
    for (size_t i = 0; i < own_.size(); ++i) Narrow(tensors_[i], slots).add_(added[i]);
  }
  for (dist::Request& send : sends_) send.Wait();
}

void TravellingSum::Progress() {
  receive_.Test();
  for (dist::Request& send : sends_) send.Test();
}

// Receives the previous rank's partial sum for the owner of this hop's bundle.
void TravellingSum::Receive(int hop) {
  const int64_t count = Numbers(hop);
  if (count == 0) return;
  if (!arrived_.defined()) arrived_ = Buffer();
  receive_ =
      group_.StartReceive(Bytes(arrived_.narrow(0, 0, count)), PreviousRank(group_), kSumTag);
}

}  // namespace lwm::ops
