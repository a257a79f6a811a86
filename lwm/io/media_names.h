#pragma once

#include <filesystem>

namespace lwm::io {

// True for the extensions of moving images: mp4, mkv, webm, mov, avi, gif ...
bool IsVideoName(const std::filesystem::path& path);
// True for those of images.
bool IsImageName(const std::filesystem::path& path);

// True when the file is to be read as a video: by its extension, or, where that says nothing, when
// its first bytes are not those of an image. Cost: opens the file in the second case.
bool IsVideoFile(const std::filesystem::path& path);

}  // namespace lwm::io
