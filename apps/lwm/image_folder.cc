#include "image_folder.h"

#include <charconv>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/image_file.h"

namespace lwm::app {
namespace fs = std::filesystem;

ImageFolder::ImageFolder(fs::path folder, int digits, int64_t count)
    : folder_(std::move(folder)), digits_(digits) {
  fs::path there = fs::absolute(folder_);
  std::error_code ignored;
  while (!fs::exists(there, ignored) && there.has_relative_path()) there = there.parent_path();
  RequireWritableFolder(there);
  if (fs::is_directory(folder_)) RequireNoLater(count);
}

std::string ImageFolder::NameOf(int64_t number) const {
  std::string name = std::to_string(number);
  const auto digits = static_cast<size_t>(digits_);
  if (name.size() < digits) name.insert(0, digits - name.size(), '0');
  return name + ".png";
}

void ImageFolder::RequireNoLater(int64_t count) const {
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    int64_t number = -1;
    std::from_chars(name.data(), name.data() + name.size(), number);
    LWM_REQUIRE(number < count || name != NameOf(number), folder_.string(), " holds ", name,
                ", which would pass for an image of this run; remove it or name another folder");
  }
}

void ImageFolder::Add(const io::RgbImage& image) {
  if (next_ == 0) fs::create_directories(folder_);
  io::WritePng(folder_ / NameOf(next_++), image);
}

}  // namespace lwm::app
