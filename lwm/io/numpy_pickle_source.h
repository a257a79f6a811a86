#pragma once

#include <cstddef>
#include <deque>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lwm/io/mapped_source.h"

namespace lwm::io {

// The arrays of a pickled tree of dicts (flax FrozenDict too) with numpy or JAX arrays as leaves,
// the form of the published VQGAN. The pickle is read as data (io/pickle.h); anything but arrays
// and dicts is refused. Names join the keys with '/'.
struct NumpyTree {
  std::vector<StoredTensor> tensors;
  // Bytes that protocol 2 stores as text, decoded; the tensors' spans may point here.
  std::deque<std::vector<std::byte>> decoded;
};

// Throws Error(kCorruptData). The other spans point into `file`.
NumpyTree ParseNumpyPickle(std::span<const std::byte> file, const std::string& where);

class NumpyPickleSource final : public MappedSource {
 public:
  explicit NumpyPickleSource(const std::filesystem::path& path);

  std::string_view format() const override { return "vqgan-pickle"; }

 private:
  std::deque<std::vector<std::byte>> decoded_;
};

}  // namespace lwm::io
