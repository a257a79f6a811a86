#include "lwm/io/tensor_source.h"

#include "lwm/base/error.h"

namespace lwm::io {

size_t TensorSource::IndexOf(const std::string& name) const {
  const auto found = index_.find(name);
  LWM_REQUIRE_AS(ErrorCode::kNotFound, found != index_.end(), where_, ": no tensor ", name);
  return found->second;
}

void TensorSource::Read(const std::string& name, std::span<std::byte> destination) const {
  const size_t index = IndexOf(name);
  LWM_CHECK(destination.size() == TensorBytes(infos_[index]), "tensor ", name, ": wrong size");
  ReadRange(index, 0, destination);
}

std::span<const std::byte> TensorSource::View(size_t) const { return {}; }

void TensorSource::Forget(size_t) const {}

std::span<const std::byte> TensorSource::Aligned(size_t index,
                                                 std::span<const std::byte> bytes) const {
  const bool aligned =
      reinterpret_cast<uintptr_t>(bytes.data()) % DTypeSize(infos_[index].dtype) == 0;
  return aligned ? bytes : std::span<const std::byte>();
}

void TensorSource::SetInfos(std::vector<TensorInfo> infos) {
  infos_ = std::move(infos);
  for (size_t i = 0; i < infos_.size(); ++i) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, index_.emplace(infos_[i].name, i).second, where_,
                   ": tensor ", infos_[i].name, " appears twice");
  }
}

void TensorSource::CheckRange(size_t index, uint64_t offset, size_t bytes) const {
  const uint64_t size = TensorBytes(infos_[index]);
  const size_t element = DTypeSize(infos_[index].dtype);
  LWM_CHECK(
      offset <= size && bytes <= size - offset && offset % element == 0 && bytes % element == 0,
      "tensor ", infos_[index].name, ": bytes outside the tensor");
}

}  // namespace lwm::io
