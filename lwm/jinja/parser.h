#pragma once

#include <string>
#include <string_view>

#include "lwm/jinja/syntax.h"

namespace lwm::jinja {

// The syntax tree of a template. Throws Error(kCorruptData) naming `where`, the line, and a
// construct that is wrong or not supported (include, import, extends, block, call, filter, with,
// autoescape, recursive loops, macros inside of loops), or what is nested too deeply.
Block ParseTemplate(std::string_view source, const std::string& where);

}  // namespace lwm::jinja
