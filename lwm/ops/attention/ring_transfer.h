#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lwm/dist/communicator.h"
#include "lwm/ops/attention/ring_slots.h"

namespace lwm::ops {

// A tensor circulated round the ring; only its owner's slot range is sent.
struct CirculatedTensor {
  at::Tensor own;  // this rank's, all slots
  int64_t slot_dim = 1;
};

// Sends a read-only bundle of tensors of every rank round the ring: at hop h this rank holds the
// bundle of rank() - h (modulo size), at hop 0 its own. One message per tensor and hop, P - 1 hops
// in all; the next bundle arrives while this one is in use. A bundle without slots sends nothing.
// Memory: up to two buffers of the largest bundle.
class TravellingBundle {
 public:
  // slots_P: the sent range of each owner, the same on all ranks, as are dtypes and the other
  // dimensions. Copies the sent part of `own` where it is not contiguous.
  TravellingBundle(dist::Communicator& group, std::vector<CirculatedTensor> own,
                   std::vector<SlotRange> slots_P);

  // Waits for the bundle of this hop and posts the transfers of the next. Returns all slots of this
  // rank's own at hop 0, the owner's range after that. The tensors returned at the hop before are
  // overwritten from now on. Hops are 0, 1, ... P - 1 in order.
  const std::vector<at::Tensor>& Arrive(int hop);

  // The bundle of the next hop if it has arrived, else nullptr; valid as long as after its Arrive.
  // Lets transfers progress: call between tiles.
  const std::vector<at::Tensor>* Next();
  void Progress() { Next(); }

 private:
  std::vector<at::Tensor> Buffer(int hop);

  dist::Communicator& group_;
  const std::vector<CirculatedTensor> own_;
  const std::vector<SlotRange> slots_P_;
  std::vector<at::Tensor> now_, next_, sent_;
  at::Tensor bytes_[2];
  std::vector<dist::Request> receives_, sends_;  // after the buffers: done before they are freed
};

// The f32 gradient of a travelling bundle: each rank adds its part while it holds the bundle, and
// the sum returns to the owner. The owner's own part stays at home, so the sum makes P - 1 hops.
class TravellingSum {
 public:
  // own: this rank's gradients, contiguous f32.
  TravellingSum(dist::Communicator& group, std::vector<CirculatedTensor> own,
                std::vector<SlotRange> slots_P);

  // Buffers for this hop's contribution; overwrite them. own at hop 0, the owner's range after
  // that. Waits until the part of two hops ago, in the same buffers, is sent. The part of the hop
  // before may still be in use.
  std::vector<at::Tensor>& Begin(int hop);
  // Whether Begin would not wait.
  bool CanBegin(int hop) { return sends_[hop % 2].Test(); }
  // The part is complete: adds the sum received so far and sends it on. Hops are in order.
  void End(int hop);
  // Receives the other ranks' sum for this rank and adds it to own.
  void Finish();

  void Progress();

 private:
  int64_t Numbers(int hop) const;
  at::Tensor Buffer() const;
  void Receive(int hop);

  dist::Communicator& group_;
  const std::vector<CirculatedTensor> tensors_;
  const std::vector<SlotRange> slots_P_;
  std::vector<at::Tensor> own_, parts_[2];
  at::Tensor flat_[2], arrived_;  // f32, of the largest range; flat_[hop % 2] holds parts_[hop % 2]
  dist::Request sends_[2], receive_;
};

}  // namespace lwm::ops
