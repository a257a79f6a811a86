#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "tests/temporary_folder.h"

namespace lwm::testing_support {

struct ProgramResult {
  int exit_code = -1;
  std::string out, err;

  std::vector<std::string> lines() const {  // of out
    std::vector<std::string> lines;
    for (size_t at = 0, end; (end = out.find('\n', at)) != std::string::npos; at = end + 1)
      lines.push_back(out.substr(at, end - at));
    return lines;
  }
};

// Runs build/lwm with `arguments` (as a shell reads them) and `input` on stdin.
inline ProgramResult RunLwm(const std::string& arguments, const std::string& input = "") {
  const char* binary = std::getenv("LWM_BINARY");
  LWM_CHECK(binary, "LWM_BINARY is not set");
  const TemporaryFolder folder;
  WriteFileAtomically(folder / "in", input);
  const std::string command = Cat(binary, " ", arguments, " < ", (folder / "in").string(), " > ",
                                  (folder / "out").string(), " 2> ", (folder / "err").string());
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, ReadFile(folder / "out"),
          ReadFile(folder / "err")};
}

}  // namespace lwm::testing_support
