#pragma once

#include <cstdint>
#include <vector>

#include "lwm/io/image.h"
#include "lwm/io/image_file.h"

namespace lwm::vision {

struct GridOptions {
  int64_t columns = 8;  // fewer when there are fewer images
  int64_t padding = 2;  // white pixels around and between the images
};

// Images of one size, row by row on a white ground; places left over in the last row stay white.
// For PNG: io::WritePng. Throws Error(kInvalidArgument) when there is no image, sizes differ, or
// columns < 1 or padding < 0.
io::RgbImage ImageGrid(const std::vector<io::RgbImage>& images, const GridOptions& options = {});

// Every row of `above` stands over the same row of `below` (originals over reconstructions); rows
// of pairs are parted by twice the padding. As many of one as of the other.
io::RgbImage PairGrid(const std::vector<io::RgbImage>& above,
                      const std::vector<io::RgbImage>& below, const GridOptions& options = {});

}  // namespace lwm::vision
