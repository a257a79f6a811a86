#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "lwm/data/content_kind.h"

namespace lwm::data {

// Converts UTF-16 or UTF-32 (`form`) behind its byte order mark to UTF-8, piece by piece. Throws
// Error(kCorruptData) naming `where` and the byte: half a surrogate pair, a number that is no
// character, bytes that are no whole unit.
void ConvertToUtf8(std::string_view bytes, ContentKind::Form form, const std::string& where,
                   const std::function<void(std::string_view piece)>& sink);

}  // namespace lwm::data
