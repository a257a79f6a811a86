#include "lwm/base/reserved_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/text.h"

namespace lwm {

ReservedMemory::ReservedMemory(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  // NORESERVE: a cache for the longest context reserves far more than it writes. Only with
  // vm.overcommit_memory = 2 is the whole range charged at once.
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, address != MAP_FAILED, "cannot reserve ",
                 FormatBytes(static_cast<double>(bytes)),
                 " of address space: ", std::strerror(errno));
  data_ = static_cast<std::byte*>(address);
}

ReservedMemory::~ReservedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

ReservedMemory::ReservedMemory(ReservedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

void ReservedMemory::Discard(size_t offset, size_t size) const {
  LWM_CHECK(offset <= bytes_ && size <= bytes_ - offset, "range beyond ", bytes_, " bytes");
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  // Inwards to whole pages: those at the ends hold data that stays.
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + size) / page * page;
  if (begin < end) madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

}  // namespace lwm
