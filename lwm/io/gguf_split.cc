#include "lwm/io/gguf_split.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "lwm/base/error.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

// "NAME-00002-of-00003.gguf".
struct PartName {
  std::string prefix;  // "NAME-"
  size_t number = 0, count = 0;
};

constexpr size_t kDigits = 5, kMaxParts = 99'999;

std::optional<size_t> NumberIn(std::string_view digits) {
  size_t number = 0;
  const auto end = digits.data() + digits.size();
  const auto parsed = std::from_chars(digits.data(), end, number);
  const bool whole = digits.size() == kDigits && parsed.ec == std::errc() && parsed.ptr == end;
  return whole && number >= 1 && number <= kMaxParts ? std::optional(number) : std::nullopt;
}

std::optional<PartName> ParsePartName(const fs::path& file) {
  constexpr std::string_view kOf = "-of-";
  constexpr size_t kTail = 2 * kDigits + kOf.size();
  if (file.extension() != ".gguf") return {};
  const std::string stem = file.stem().string();
  if (stem.size() <= kTail) return {};
  const std::string_view tail = std::string_view(stem).substr(stem.size() - kTail);
  const auto number = NumberIn(tail.substr(0, kDigits));
  const auto count = NumberIn(tail.substr(kDigits + kOf.size()));
  const bool is_part = tail.substr(kDigits, kOf.size()) == kOf && number && count;
  if (!is_part || *number > *count) return {};
  return PartName{stem.substr(0, stem.size() - kTail), *number, *count};
}

fs::path PartPath(const fs::path& beside, const PartName& name, size_t number) {
  return beside.parent_path() /
         fmt::format("{}{:05}-of-{:05}.gguf", name.prefix, number, name.count);
}

}  // namespace

std::vector<fs::path> GgufParts(const fs::path& file) {
  const auto name = ParsePartName(file);
  if (!name) return {file};
  std::vector<fs::path> parts, missing;
  for (size_t number = 1; number <= name->count; ++number) {
    fs::path part = PartPath(file, *name, number);
    (fs::exists(part) ? parts : missing).push_back(std::move(part));
  }
  if (missing.empty()) return parts;
  throw Error(
      ErrorCode::kNotFound,
      Cat(file.string(), ": a model split in ", name->count, " files, of which ", missing.size(),
          missing.size() == 1 ? " is" : " are", " missing: ", missing.front().filename().string(),
          missing.size() > 1 ? " ..." : "", "; the download is incomplete"));
}

fs::path FirstGgufPart(const fs::path& file) {
  const auto name = ParsePartName(file);
  return name && name->number > 1 ? PartPath(file, *name, 1) : file;
}

void RequireGgufPart(const GgufMetadata& metadata, size_t index, size_t count) {
  const auto parts = static_cast<size_t>(metadata.Integer("split.count").value_or(0));
  // Names and metadata must agree: a renamed part would put tensors of another model in place.
  if (parts <= 1 && count == 1) return;
  const auto number = static_cast<size_t>(metadata.Integer("split.no").value_or(0)) + 1;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, count > 1, metadata.where, ": part ", number, " of ",
                 parts, " of a split model; give all parts their names again, NAME-",
                 fmt::format("{:05}-of-{:05}.gguf", number, parts), ", in one folder");
  LWM_REQUIRE_AS(
      ErrorCode::kCorruptData, parts == count && number == index + 1, metadata.where,
      ": by its name part ", index + 1, " of ", count, " of a split model, but it says ",
      parts == 0 ? std::string("nothing of a split") : Cat("part ", number, " of ", parts),
      "; the files do not belong together");
}

}  // namespace lwm::io
