#include "lwm/base/git_lfs.h"

#include <charconv>
#include <fstream>

#include "lwm/base/error.h"
#include "lwm/base/text.h"

namespace lwm {
namespace {

constexpr std::string_view kVersionLines[] = {"version https://git-lfs.github.com/spec/",
                                              "version https://hawser.github.com/spec/"};
constexpr std::string_view kSizeKey = "\nsize ";

// " (98.1 MiB)", or "" when the pointer does not say.
std::string SizeText(std::string_view pointer) {
  const size_t at = pointer.find(kSizeKey);
  if (at == std::string_view::npos) return "";
  const std::string_view digits = pointer.substr(at + kSizeKey.size());
  uint64_t bytes = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), bytes);
  if (parsed.ec != std::errc()) return "";
  return Cat(" (", FormatBytes(static_cast<double>(bytes)), ")");
}

}  // namespace

bool IsGitLfsPointer(std::string_view content) noexcept {
  if (content.size() >= kGitLfsPointerBytes) return false;
  bool has_version = false;
  for (const std::string_view line : kVersionLines) has_version |= content.starts_with(line);
  return has_version && content.find("\noid ") != std::string_view::npos;
}

void RefuseGitLfsPointer(std::string_view content, const std::string& where) {
  LWM_REQUIRE_AS(ErrorCode::kNotFound, !IsGitLfsPointer(content), where,
                 ": a Git LFS pointer; the file itself", SizeText(content),
                 " was not fetched: run `git lfs pull` in its repository, or download it again");
}

void RefuseGitLfsPointer(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string start(kGitLfsPointerBytes, '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(in.gcount()));
  RefuseGitLfsPointer(start, file.string());
}

}  // namespace lwm
