#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lwm/dist/communicator.h"

namespace lwm::ops {

// A read-only bundle of tensors of every rank on its way round the ring: at hop h this rank holds
// the bundle of rank() - h (modulo size), hop 0 is its own. Two buffers of the bundle's size; one
// message per hop, P - 1 in all, under way while the bundle before it is in use.
class TravellingBundle {
 public:
  // Copies `own` unless the group has one rank. All ranks pass the same shapes and dtypes.
  TravellingBundle(dist::Communicator& group, std::vector<at::Tensor> own);

  // The bundle of this hop, once it has arrived; what the hop before returned is overwritten from
  // now on. Hops are 0, 1, ... P - 1 in order.
  const std::vector<at::Tensor>& Arrive(int hop);

  // Lets the transfer progress; call between tiles.
  void Progress();

 private:
  dist::Communicator& group_;
  std::vector<at::Tensor> bundle_[2];  // views into bytes_
  at::Tensor bytes_[2];
  dist::Request send_, receive_;  // after the buffers: done before they are freed
};

// The f32 gradient of a travelling bundle: each rank adds its part while the bundle is with it, and
// the sum comes home. The owner's part stays at home, so that it makes P - 1 hops.
class TravellingSum {
 public:
  // own: this rank's gradients, zero or to be added to; contiguous f32, same shapes on all ranks.
  TravellingSum(dist::Communicator& group, std::vector<at::Tensor> own);

  // Where the part of this hop goes: own at hop 0, zeros after that.
  std::vector<at::Tensor>& Begin(int hop);
  // The part is complete: adds what has travelled so far and passes it on.
  void End(int hop);
  // Receives what the other ranks have added for this rank and adds it to own.
  void Finish();

  void Progress();

 private:
  void Receive();

  dist::Communicator& group_;
  std::vector<at::Tensor> own_, part_[2];
  at::Tensor flat_[2], arrived_;  // f32; flat_[i] holds part_[i]
  int64_t count_ = 0;
  dist::Request send_, receive_;
};

}  // namespace lwm::ops
