#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "lwm/io/image.h"

namespace lwm::app {

// A folder of images named by their number: 0.png, 1.png ..., or with six digits 000000.png,
// 000001.png ...
class ImageFolder {
 public:
  // Writes nothing yet. Throws Error(kInvalidArgument) when the folder cannot be made or written,
  // and when it holds such a name from number `count` on: an image that an earlier run left would
  // pass for one of this run. Those below are replaced.
  ImageFolder(std::filesystem::path folder, int digits, int64_t count);

  void Add(const io::RgbImage& image);

 private:
  std::string NameOf(int64_t number) const;
  void RequireNoLater(int64_t count) const;

  std::filesystem::path folder_;
  int digits_;
  int64_t next_ = 0;
};

}  // namespace lwm::app
