#pragma once

#include <cstdint>
#include <string>

namespace lwm {

// "1 rank", "2 ranks".
inline std::string CountOf(int64_t count, const std::string& thing) {
  return std::to_string(count) + ' ' + thing + (count == 1 ? "" : "s");
}

}  // namespace lwm
