#pragma once

// fmt::format for modules that use LibTorch: its include folder carries an fmt of its own, newer
// than the system's, and no library with its symbols. Header-only works with either.
#ifndef FMT_HEADER_ONLY
#define FMT_HEADER_ONLY
#endif
#include <fmt/format.h>
