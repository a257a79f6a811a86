#pragma once

#include <cstdlib>
#include <filesystem>

namespace lwm::testing_support {

// tests/golden/`name` in the source tree.
inline std::filesystem::path GoldenFolder(const std::string& name) {
  const char* source = std::getenv("LWM_SOURCE_DIR");
  return std::filesystem::path(source ? source : ".") / "tests/golden" / name;
}

}  // namespace lwm::testing_support
