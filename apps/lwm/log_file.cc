#include "log_file.h"

#include <cerrno>
#include <cstring>
#include <ctime>
#include <sstream>

#include "lwm/base/error.h"

namespace lwm::app {
namespace {

std::string UtcNow() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

LogFile::LogFile(const std::filesystem::path& path) : file_(path, std::ios::app) {
  LWM_REQUIRE(file_.is_open(), "--log-file ", path.string(),
              ": cannot write there: ", std::strerror(errno));
}

void LogFile::Add(const std::string& text) {
  const std::string now = UtcNow();
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) file_ << now << " " << line << "\n";
  file_ << std::flush;
  file_.clear();
}

}  // namespace lwm::app
