#include "lwm/io/media_names.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <string>
#include <string_view>

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

std::string LowerExtension(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

template <size_t n>
bool Contains(const std::array<std::string_view, n>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

}  // namespace

bool IsVideoName(const fs::path& path) {
  static constexpr std::array<std::string_view, 18> kVideos = {
      ".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".wmv",
      ".flv", ".ogv", ".gif", ".3gp",  ".3g2", ".ts",  ".mts", ".m2ts", ".asf"};
  return Contains(kVideos, LowerExtension(path));
}

bool IsImageName(const fs::path& path) {
  static constexpr std::array<std::string_view, 13> kImages = {
      ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff",
      ".ppm", ".pgm", ".pnm",  ".jp2",  ".jpe", ".jfif"};
  return Contains(kImages, LowerExtension(path));
}

bool IsVideoFile(const fs::path& path) {
  using namespace std::literals;
  if (IsVideoName(path) || IsImageName(path)) return IsVideoName(path);
  static constexpr std::array<std::string_view, 12> kImages = {
      "\x89PNG", "\xff\xd8\xff", "BM", "II*\0"sv, "MM\0*"sv, "\0\0\0\x0cjP"sv,
      "P1",      "P2",           "P3", "P4",      "P5",      "P6"};
  std::array<char, 12> first = {};
  std::ifstream file(path, std::ios::binary);
  if (!file.read(first.data(), first.size())) return false;
  const std::string_view start(first.data(), first.size());
  return !(start.starts_with("RIFF") && start.ends_with("WEBP")) &&
         std::none_of(kImages.begin(), kImages.end(),
                      [&](std::string_view magic) { return start.starts_with(magic); });
}

}  // namespace lwm::io
