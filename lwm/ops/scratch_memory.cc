#include "lwm/ops/scratch_memory.h"

#include <ATen/ATen.h>

#include <deque>
#include <memory>
#include <mutex>
#include <utility>

#include "lwm/kernels/aligned_buffer.h"

namespace lwm::ops {
namespace {

struct Piece {
  kernels::AlignedBuffer<char> memory;
  size_t bytes = 0;
};

// Pieces that are not in use, the last one returned at the end. The smallest piece that fits is
// taken, since calls of a training step repeat in the same sizes.
class Pool {
 public:
  Piece Take(size_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      auto best = kept_.end();
      for (auto piece = kept_.begin(); piece != kept_.end(); ++piece) {
        // At most twice as large: a small request must not take a large piece from a later one.
        const bool fits = piece->bytes >= bytes && piece->bytes / 2 <= bytes;
        if (fits && (best == kept_.end() || piece->bytes < best->bytes)) best = piece;
      }
      if (best != kept_.end()) {
        Piece piece = std::move(*best);
        kept_.erase(best);
        total_ -= piece.bytes;
        return piece;
      }
    }
    // Outside the lock: the system may take long.
    return {kernels::MakeAlignedBuffer<char>(bytes), bytes};
  }

  void GiveBack(Piece piece) {
    const std::lock_guard lock(mutex_);
    total_ += piece.bytes;
    kept_.push_back(std::move(piece));
    // The piece unused for longest goes first.
    while (total_ > kKeptScratchBytes) {
      total_ -= kept_.front().bytes;
      kept_.pop_front();
    }
  }

 private:
  std::mutex mutex_;
  std::deque<Piece> kept_;
  size_t total_ = 0;
};

// Never destroyed: tensors of static objects may come back after main.
Pool& ThePool() {
  static Pool* const pool = new Pool;
  return *pool;
}

}  // namespace

ScratchMemory::ScratchMemory(size_t bytes) {
  Piece piece = ThePool().Take(bytes);
  data_ = piece.memory.release();
  bytes_ = piece.bytes;
}

ScratchMemory::~ScratchMemory() {
  ThePool().GiveBack({kernels::AlignedBuffer<char>(data_), bytes_});
}

at::Tensor ScratchTensor(at::IntArrayRef shape, at::ScalarType dtype) {
  const auto bytes = static_cast<size_t>(c10::multiply_integers(shape)) * c10::elementSize(dtype);
  auto memory = std::make_shared<ScratchMemory>(bytes);
  void* data = memory->data();
  return at::from_blob(
      data, shape, [memory = std::move(memory)](void*) mutable { memory.reset(); },
      at::TensorOptions(dtype));
}

}  // namespace lwm::ops
