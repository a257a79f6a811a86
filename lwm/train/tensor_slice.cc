#include "lwm/train/tensor_slice.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "lwm/base/error.h"

namespace lwm::train {
namespace {

using Split = TensorSlice::Split;

// Calls run(first, offset, count) for the elements [first, end) of the whole tensor that the slice
// holds too.
template <class Run>
void ForEachShared(const TensorSlice& slice, int64_t first, int64_t end, const Run& run) {
  // Split by rows or not at all, a part is one run of the whole tensor; by columns, one run per
  // row.
  if (slice.split != Split::kCols) {
    const int64_t base = slice.part * slice.part_rows() * slice.cols;  // of the part in the whole
    const int64_t from = std::max(first, base + slice.begin);
    const int64_t to = std::min(end, base + slice.end);
    if (from < to) run(from, from - base - slice.begin, to - from);
    return;
  }
  const int64_t width = slice.part_cols();
  const int64_t first_row = std::max(first / slice.cols, slice.begin / width);
  const int64_t end_row =
      std::min((end + slice.cols - 1) / slice.cols, (slice.end + width - 1) / width);
  for (int64_t row = first_row; row < end_row; ++row) {
    const int64_t base = row * slice.cols + slice.part * width;  // of the row's part in the whole
    const int64_t from = std::max(first, base + std::max<int64_t>(0, slice.begin - row * width));
    const int64_t to = std::min(end, base + std::min(width, slice.end - row * width));
    if (from < to) run(from, row * width + (from - base) - slice.begin, to - from);
  }
}

TensorSlice SliceOf(const model::TensorSpec& spec, Split split, int64_t part, int64_t parts) {
  TensorSlice slice;
  slice.rows = spec.shape.at(0);
  slice.cols = spec.shape.size() > 1 ? spec.shape[1] : 1;
  if (split != Split::kNone) {
    slice.split = split;
    slice.part = part;
    slice.parts = parts;
  }
  slice.end = slice.part_rows() * slice.part_cols();
  return slice;
}

// Reads "12" from the front of `text` and then `separator` (none: the end). False if not there.
bool TakeNumber(std::string_view& text, std::string_view separator, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  if (separator.empty()) return text.empty();
  if (!text.starts_with(separator)) return false;
  text.remove_prefix(separator.size());
  return true;
}

}  // namespace

TensorSlice WholeSlice(const model::TensorSpec& spec) { return SliceOf(spec, Split::kNone, 0, 1); }

TensorSlice PartSlice(const model::TensorSpec& spec, int64_t part, int64_t parts) {
  const Split split = parts == 1 ? Split::kNone : spec.tensor_parallel_split;
  const TensorSlice slice = SliceOf(spec, split, part, parts);
  const int64_t divided = split == Split::kCols ? slice.cols : slice.rows;
  LWM_CHECK(split == Split::kNone || divided % parts == 0, spec.name, ": ", divided, " in ", parts);
  return slice;
}

void ForEachRun(const TensorSlice& slice,
                const std::function<void(int64_t first, int64_t offset, int64_t count)>& run) {
  ForEachShared(slice, 0, slice.rows * slice.cols, run);
}

int64_t CopyOverlap(const TensorSlice& source_slice, const float* source,
                    const TensorSlice& target_slice, float* target) {
  LWM_CHECK(source_slice.rows == target_slice.rows && source_slice.cols == target_slice.cols,
            "slices of different tensors");
  int64_t copied = 0;
  ForEachShared(target_slice, 0, target_slice.rows * target_slice.cols,
                [&](int64_t first, int64_t target_offset, int64_t count) {
                  ForEachShared(source_slice, first, first + count,
                                [&](int64_t from, int64_t source_offset, int64_t shared) {
                                  std::memcpy(target + target_offset + (from - first),
                                              source + source_offset,
                                              static_cast<size_t>(shared) * sizeof(float));
                                  copied += shared;
                                });
                });
  return copied;
}

std::string SliceText(const TensorSlice& slice) {
  const std::string range = Cat(":", slice.begin, "-", slice.end);
  if (slice.split == Split::kNone) return "whole" + range;
  return Cat(slice.split == Split::kRows ? "rows." : "cols.", slice.part + 1, "of", slice.parts,
             range);
}

TensorSlice ParseSlice(const std::string& text, const model::TensorSpec& spec) {
  std::string_view rest = text;
  int64_t part = 1, parts = 1;
  Split split = Split::kNone;
  bool good = rest.starts_with("whole:") || rest.starts_with("rows.") || rest.starts_with("cols.");
  if (good && rest.starts_with("whole:")) {
    rest.remove_prefix(6);
  } else if (good) {
    split = rest.starts_with("rows.") ? Split::kRows : Split::kCols;
    rest.remove_prefix(5);
    good = TakeNumber(rest, "of", part) && TakeNumber(rest, ":", parts) && part >= 1 &&
           part <= parts && spec.tensor_parallel_split == split &&
           spec.shape.at(split == Split::kCols ? 1 : 0) % parts == 0;
  }
  TensorSlice slice;
  if (good) {
    slice = SliceOf(spec, split, part - 1, parts);
    const int64_t size = slice.end;
    good = TakeNumber(rest, "-", slice.begin) && TakeNumber(rest, "", slice.end) &&
           slice.begin <= slice.end && slice.end <= size;
  }
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, good, "'", text, "' is not a slice of ", spec.name);
  return slice;
}

}  // namespace lwm::train
