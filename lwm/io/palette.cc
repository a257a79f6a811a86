#include "lwm/io/palette.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <unordered_map>

#include "lwm/base/error.h"

namespace lwm::io {
namespace {

constexpr size_t kMostColours = 256;
constexpr size_t kCells = 32 * 32 * 32;

size_t CellOf(const uint8_t* rgb) {
  return static_cast<size_t>(rgb[0] >> 3) << 10 | static_cast<size_t>(rgb[1] >> 3) << 5 |
         static_cast<size_t>(rgb[2] >> 3);
}

// The colours themselves, or nothing when there are too many.
std::optional<IndexedImage> IndexExactly(const RgbImage& image) {
  IndexedImage indexed;
  std::unordered_map<uint32_t, uint8_t> index_of;
  for (size_t i = 0; i < image.rgb_HWC.size(); i += 3) {
    const uint8_t* rgb = image.rgb_HWC.data() + i;
    const uint32_t key = static_cast<uint32_t>(rgb[0] << 16 | rgb[1] << 8 | rgb[2]);
    const auto [found, is_new] =
        index_of.try_emplace(key, static_cast<uint8_t>(indexed.palette.size()));
    if (is_new && indexed.palette.size() == kMostColours) return {};
    if (is_new) indexed.palette.push_back({rgb[0], rgb[1], rgb[2]});
    indexed.index_HW.push_back(found->second);
  }
  return indexed;
}

// The pixels of one cell of colours.
struct Cell {
  size_t cell = 0;
  double pixels = 0;
  std::array<double, 3> sum = {};

  double Mean(size_t axis) const { return sum[axis] / pixels; }
};

std::vector<Cell> CountCells(const RgbImage& image) {
  std::vector<Cell> all(kCells);
  for (size_t i = 0; i < image.rgb_HWC.size(); i += 3) {
    const uint8_t* rgb = image.rgb_HWC.data() + i;
    Cell& cell = all[CellOf(rgb)];
    ++cell.pixels;
    for (size_t axis = 0; axis < 3; ++axis) cell.sum[axis] += rgb[axis];
  }
  std::vector<Cell> used;
  for (size_t i = 0; i < kCells; ++i) {
    if (all[i].pixels == 0) continue;
    all[i].cell = i;
    used.push_back(all[i]);
  }
  return used;
}

// Cells [begin, end), the mean of their colours and how far they spread.
struct Box {
  Box(const std::vector<Cell>& cells, size_t first, size_t last) : begin(first), end(last) {
    double pixels = 0;
    for (size_t i = begin; i < end; ++i) pixels += cells[i].pixels;
    for (size_t axis = 0; axis < 3; ++axis) {
      double sum = 0, square = 0;
      for (size_t i = begin; i < end; ++i) sum += cells[i].sum[axis];
      mean[axis] = sum / pixels;
      for (size_t i = begin; i < end; ++i) {
        const double apart = cells[i].Mean(axis) - mean[axis];
        square += apart * apart * cells[i].pixels;
      }
      error += square;
      if (square <= widest_error) continue;
      widest_error = square;
      widest = axis;
    }
  }

  size_t begin, end;
  std::array<double, 3> mean = {};
  double error = 0, widest_error = 0;
  size_t widest = 0;
};

std::vector<Box> CutBoxes(std::vector<Cell>& cells) {
  std::vector<Box> boxes = {Box(cells, 0, cells.size())};
  while (boxes.size() < std::min(kMostColours, cells.size())) {
    const auto worst = std::max_element(
        boxes.begin(), boxes.end(), [](const Box& a, const Box& b) { return a.error < b.error; });
    if (worst->error <= 0) break;
    const Box box = *worst;
    const auto from = cells.begin() + static_cast<ptrdiff_t>(box.begin);
    const auto to = cells.begin() + static_cast<ptrdiff_t>(box.end);
    const auto middle = std::partition(
        from, to, [&](const Cell& cell) { return cell.Mean(box.widest) <= box.mean[box.widest]; });
    if (middle == from || middle == to) break;  // equal but for rounding
    const auto cut = static_cast<size_t>(middle - cells.begin());
    *worst = Box(cells, box.begin, cut);
    boxes.emplace_back(cells, cut, box.end);
  }
  return boxes;
}

uint8_t Nearest(const std::vector<Box>& boxes, const Cell& cell) {
  double best = std::numeric_limits<double>::max();
  size_t nearest = 0;
  for (size_t i = 0; i < boxes.size(); ++i) {
    double distance = 0;
    for (size_t axis = 0; axis < 3; ++axis) {
      const double apart = boxes[i].mean[axis] - cell.Mean(axis);
      distance += apart * apart;
    }
    if (distance >= best) continue;
    best = distance;
    nearest = i;
  }
  return static_cast<uint8_t>(nearest);
}

IndexedImage IndexByBoxes(const RgbImage& image) {
  std::vector<Cell> cells = CountCells(image);
  const std::vector<Box> boxes = CutBoxes(cells);
  std::vector<uint8_t> index_of(kCells);
  for (const Cell& cell : cells) index_of[cell.cell] = Nearest(boxes, cell);
  IndexedImage indexed;
  for (const Box& box : boxes)
    indexed.palette.push_back({static_cast<uint8_t>(box.mean[0] + 0.5),
                               static_cast<uint8_t>(box.mean[1] + 0.5),
                               static_cast<uint8_t>(box.mean[2] + 0.5)});
  for (size_t i = 0; i < image.rgb_HWC.size(); i += 3)
    indexed.index_HW.push_back(index_of[CellOf(image.rgb_HWC.data() + i)]);
  return indexed;
}

}  // namespace

IndexedImage MakeIndexed(const RgbImage& image) {
  LWM_REQUIRE(!image.rgb_HWC.empty(), "an image without pixels has no colours");
  if (auto exact = IndexExactly(image)) return std::move(*exact);
  return IndexByBoxes(image);
}

}  // namespace lwm::io
