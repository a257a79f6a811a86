#include "lwm/ops/ring_transfer.h"

#include <ATen/ATen.h>

#include <utility>

#include "lwm/base/error.h"

namespace lwm::ops {
namespace {

constexpr int kBundleTag = 701, kSumTag = 702;
constexpr int64_t kAlignment = 64;  // bytes: every tensor of a bundle starts on a cache line

int Next(const dist::Communicator& group) { return (group.rank() + 1) % group.size(); }
int Previous(const dist::Communicator& group) {
  return (group.rank() + group.size() - 1) % group.size();
}

std::span<std::byte> Bytes(const at::Tensor& x) {
  return {static_cast<std::byte*>(x.data_ptr()), x.nbytes()};
}

int64_t AlignedBytes(const at::Tensor& x) {
  const auto bytes = static_cast<int64_t>(x.numel() * x.element_size());
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Contiguous tensors like those of `like`, one after another in `bytes`.
std::vector<at::Tensor> Views(const at::Tensor& bytes, const std::vector<at::Tensor>& like) {
  std::vector<at::Tensor> views;
  int64_t offset = 0;
  for (const at::Tensor& x : like) {
    const auto size = static_cast<int64_t>(x.numel() * x.element_size());
    views.push_back(bytes.narrow(0, offset, size).view(x.scalar_type()).view(x.sizes()));
    offset += AlignedBytes(x);
  }
  return views;
}

}  // namespace

TravellingBundle::TravellingBundle(dist::Communicator& group, std::vector<at::Tensor> own)
    : group_(group) {
  if (group.size() == 1) {
    bundle_[0] = std::move(own);
    return;
  }
  int64_t size = 0;
  for (const at::Tensor& x : own) size += AlignedBytes(x);
  for (int i = 0; i < 2; ++i) {
    bytes_[i] = at::empty({size}, at::kByte);
    bundle_[i] = Views(bytes_[i], own);
  }
  for (size_t i = 0; i < own.size(); ++i) bundle_[0][i].copy_(own[i]);
}

const std::vector<at::Tensor>& TravellingBundle::Arrive(int hop) {
  send_.Wait();
  receive_.Wait();
  if (hop + 1 < group_.size()) {
    receive_ = group_.StartReceive(Bytes(bytes_[(hop + 1) % 2]), Previous(group_), kBundleTag);
    send_ = group_.StartSend(Bytes(bytes_[hop % 2]), Next(group_), kBundleTag);
  }
  return bundle_[hop % 2];
}

void TravellingBundle::Progress() {
  receive_.Test();
  send_.Test();
}

TravellingSum::TravellingSum(dist::Communicator& group, std::vector<at::Tensor> own)
    : group_(group), own_(std::move(own)) {
  for (const at::Tensor& x : own_) {
    LWM_CHECK(x.scalar_type() == at::kFloat && x.is_contiguous(), "a travelling sum is f32");
    count_ += AlignedBytes(x) / static_cast<int64_t>(sizeof(float));
  }
}

std::vector<at::Tensor>& TravellingSum::Begin(int hop) {
  if (hop == 0) return own_;
  if (hop >= 2) Receive();
  at::Tensor& flat = flat_[hop % 2];  // its send of two hops ago is done
  if (flat.defined()) {
    flat.zero_();
  } else {
    flat = at::zeros({count_}, at::kFloat);
    part_[hop % 2] = Views(flat.view(at::kByte), own_);
  }
  return part_[hop % 2];
}

void TravellingSum::End(int hop) {
  if (hop == 0) return;
  if (hop >= 2) {
    receive_.Wait();
    flat_[hop % 2].add_(arrived_);
  }
  send_.Wait();
  send_ = group_.StartSend(Bytes(flat_[hop % 2]), Next(group_), kSumTag);
}

void TravellingSum::Finish() {
  if (group_.size() == 1) return;
  Receive();
  receive_.Wait();
  const std::vector<at::Tensor> added = Views(arrived_.view(at::kByte), own_);
  for (size_t i = 0; i < own_.size(); ++i) own_[i].add_(added[i]);
  send_.Wait();
}

void TravellingSum::Progress() {
  receive_.Test();
  send_.Test();
}

void TravellingSum::Receive() {
  if (!arrived_.defined()) arrived_ = at::empty({count_}, at::kFloat);
  receive_ = group_.StartReceive(Bytes(arrived_), Previous(group_), kSumTag);
}

}  // namespace lwm::ops
