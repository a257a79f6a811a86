#pragma once

#include <filesystem>
#include <fstream>
#include <string>

namespace lwm::app {

// A file of messages, each line with the time: "2026-01-31T17:05:09Z step 10/600 ...".
class LogFile {
 public:
  // Appends. Throws Error(kInvalidArgument) when the file cannot be written.
  explicit LogFile(const std::filesystem::path& path);

  // Each line of `text` gets the time. A full disk loses lines, not the run.
  void Add(const std::string& text);

 private:
  std::ofstream file_;
};

}  // namespace lwm::app
