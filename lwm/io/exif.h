#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

#include "lwm/io/orientation.h"

namespace lwm::io {

// The orientation of an EXIF block: a TIFF header and its first directory, after "Exif\0\0" or not.
// Nothing when there is none, or it is damaged or not 1 to 8. Never throws.
std::optional<Orientation> ExifOrientation(std::span<const std::byte> exif);

// The orientation in an XMP packet (tiff:Orientation), which counts where EXIF has none.
std::optional<Orientation> XmpOrientation(std::string_view xmp);

}  // namespace lwm::io
