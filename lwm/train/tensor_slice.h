#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "lwm/model/weights.h"

namespace lwm::train {

// A run of elements of one tensor as a rank holds it: elements [begin, end) of the row-major part
// number `part` of `parts` equal parts of a [rows, cols] tensor that was split by rows or columns.
// A whole tensor is {rows, cols}; a vector has cols = 1.
struct TensorSlice {
  using Split = model::TensorSpec::Split;
  int64_t rows = 0, cols = 1;
  Split split = Split::kNone;
  int64_t part = 0, parts = 1;
  int64_t begin = 0, end = 0;

  int64_t size() const { return end - begin; }
  int64_t part_rows() const { return split == Split::kRows ? rows / parts : rows; }
  int64_t part_cols() const { return split == Split::kCols ? cols / parts : cols; }
};

// All of a tensor, and all of one part of it (what tensor-parallel rank `part` of `parts` holds;
// tensors that are not split are whole everywhere).
TensorSlice WholeSlice(const model::TensorSpec& spec);
TensorSlice PartSlice(const model::TensorSpec& spec, int64_t part, int64_t parts);

// Calls run(first, offset, count) for each longest run of elements that are neighbours in the whole
// tensor too: elements [first, first + count) of the whole tensor are elements
// [offset, offset + count) of the slice. One run, or one per row when split by columns.
void ForEachRun(const TensorSlice& slice,
                const std::function<void(int64_t first, int64_t offset, int64_t count)>& run);

// Copies the elements that both slices of one tensor hold from `source` (source_slice.size()
// values) to `target`. Returns how many there were: copying from slices that cover the tensor once,
// the counts add up to target_slice.size(). Bits are kept. Cost: bytes copied, and O(1) a run.
int64_t CopyOverlap(const TensorSlice& source_slice, const float* source,
                    const TensorSlice& target_slice, float* target);

// "cols.1of2:128-640": split, part and elements, for names in optimizer files; a slice of a tensor
// that is not split reads "whole:128-640". The reverse takes rows and cols from the spec and throws
// Error(kCorruptData) on anything else.
std::string SliceText(const TensorSlice& slice);
TensorSlice ParseSlice(const std::string& text, const model::TensorSpec& spec);

}  // namespace lwm::train
