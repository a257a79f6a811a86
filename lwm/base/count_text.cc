#include "lwm/base/count_text.h"

#include <iterator>

#include "lwm/base/error.h"
#include "lwm/base/format.h"

namespace lwm {

std::string ShortCount(double value) {
  if (value < 1e4) return fmt::format("{:.0f}", value);
  if (value < 999'950) return fmt::format("{:.1f}K", value / 1e3);  // 999,950 would be 1000.0K
  const char* units[] = {"M", "G", "T"};
  size_t unit = 0;
  value /= 1e6;
  while (value >= 999.995 && unit + 1 < std::size(units)) {
    value /= 1e3;
    ++unit;
  }
  return fmt::format("{:.2f}{}", value, units[unit]);
}

std::string ShortTokens(int64_t tokens) {
  if (tokens > 0 && tokens % (1 << 20) == 0) return Cat(tokens >> 20, "M");
  if (tokens > 0 && tokens % 1024 == 0) return Cat(tokens >> 10, "K");
  return Cat(tokens);
}

}  // namespace lwm
