#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace lwm {

// True of the content of a Git LFS pointer: a few lines of text that a clone without Git LFS has in
// the place of a file. `content` is the whole file, or at least its first kGitLfsPointerBytes.
// Cost: a comparison of the first bytes. Source: the specification in Git LFS's docs/spec.md.
constexpr size_t kGitLfsPointerBytes = 1024;  // pointers are shorter
bool IsGitLfsPointer(std::string_view content) noexcept;

// Throws Error(kNotFound) when `content` is a pointer: names `where`, says how large the file
// itself is and how to fetch it. ReadFile, ReadFileStart and MappedFile call it; so should whoever
// hands a path to a library that opens it.
void RefuseGitLfsPointer(std::string_view content, const std::string& where);
// The same of a file; one that cannot be read is left to those who open it.
void RefuseGitLfsPointer(const std::filesystem::path& file);

}  // namespace lwm
