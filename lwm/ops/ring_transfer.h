#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lwm/dist/communicator.h"
#include "lwm/ops/ring_slots.h"

namespace lwm::ops {

// A tensor of which the slots in the owner's range travel.
struct Traveller {
  at::Tensor own;  // this rank's, all slots
  int64_t slot_dim = 1;
};

// A read-only bundle of tensors of every rank on its way round the ring: at hop h this rank holds
// the bundle of rank() - h (modulo size), hop 0 is its own. Up to two buffers of the largest
// bundle; one message per tensor and hop, P - 1 hops in all, under way while the bundle before it
// is in use. A bundle without slots does not travel.
class TravellingBundle {
 public:
  // slots_P: of each owner; the same on all ranks, as are dtypes and the other dimensions. Copies
  // the sent part of `own` where it is not contiguous.
  TravellingBundle(dist::Communicator& group, std::vector<Traveller> own,
                   std::vector<SlotRange> slots_P);

  // The bundle of this hop, once it has arrived: all slots of this rank's own, and those of the
  // owner's range after that. What the hop before returned is overwritten from now on. Hops are 0,
  // 1, ... P - 1 in order.
  const std::vector<at::Tensor>& Arrive(int hop);

  // The bundle of the hop after this one as soon as it has arrived, nullptr before; overwritten as
  // that of the hop is. Lets the transfer progress; call between tiles.
  const std::vector<at::Tensor>* Next();
  void Progress() { Next(); }

 private:
  std::vector<at::Tensor> Buffer(int hop);

  dist::Communicator& group_;
  const std::vector<Traveller> own_;
  const std::vector<SlotRange> slots_P_;
  std::vector<at::Tensor> now_, next_, sent_;
  at::Tensor bytes_[2];
  std::vector<dist::Request> receives_, sends_;  // after the buffers: done before they are freed
};

// The f32 gradient of a travelling bundle: each rank adds its part while the bundle is with it, and
// the sum comes home. The owner's part stays at home, so that it makes P - 1 hops.
class TravellingSum {
 public:
  // own: this rank's gradients, contiguous f32.
  TravellingSum(dist::Communicator& group, std::vector<Traveller> own,
                std::vector<SlotRange> slots_P);

  // Where the part of this hop goes, to be set: own at hop 0, the owner's range after that. Waits
  // until what was there two hops ago has left. The part of the hop before may be still in use.
  std::vector<at::Tensor>& Begin(int hop);
  // Whether Begin would not wait.
  bool CanBegin(int hop) { return sends_[hop % 2].Test(); }
  // The part is complete: adds what has travelled so far and passes it on. Hops are in order.
  void End(int hop);
  // Receives what the other ranks have added for this rank and adds it to own.
  void Finish();

  void Progress();

 private:
  int64_t Numbers(int hop) const;
  at::Tensor Buffer() const;
  void Receive(int hop);

  dist::Communicator& group_;
  const std::vector<Traveller> travellers_;
  const std::vector<SlotRange> slots_P_;
  std::vector<at::Tensor> own_, parts_[2];
  at::Tensor flat_[2], arrived_;  // f32, of the largest range; flat_[hop % 2] holds parts_[hop % 2]
  dist::Request sends_[2], receive_;
};

}  // namespace lwm::ops
