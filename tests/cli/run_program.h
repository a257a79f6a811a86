#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/testing/temporary_folder.h"

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

// `shell` gets the program with its redirections and says how it is run.
template <class Shell>
ProgramResult RunLwmIn(const Shell& shell, const std::string& arguments, const std::string& input) {
  const char* binary = std::getenv("LWM_BINARY");
  LWM_CHECK(binary, "LWM_BINARY is not set");
  const TemporaryFolder folder;
  WriteFileAtomically(folder / "in", input);
  const std::string command = Cat(binary, " ", arguments, " < ", (folder / "in").string(), " > ",
                                  (folder / "out").string(), " 2> ", (folder / "err").string());
  const std::string script = shell(command);
  const int status = std::system(script.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, ReadFile(folder / "out"),
          ReadFile(folder / "err")};
}

// Runs build/lwm with `arguments` (as a shell reads them) and `input` on stdin.
inline ProgramResult RunLwm(const std::string& arguments, const std::string& input = "") {
  return RunLwmIn([](const std::string& command) { return command; }, arguments, input);
}

// The same without input, and with a signal ("TERM") as soon as something stands in `awaited`.
inline ProgramResult RunLwmUntil(const std::filesystem::path& awaited, const std::string& signal,
                                 const std::string& arguments) {
  const auto shell = [&](const std::string& command) {
    return Cat(command, " & pid=$!; while [ ! -s ", awaited.string(),
               " ] && kill -0 $pid; do sleep 0.05; done; kill -", signal, " $pid; wait $pid");
  };
  return RunLwmIn(shell, arguments, "");
}

}  // namespace lwm::testing_support
