#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "lwm/config/dtype.h"
#include "lwm/dist/communicator.h"

namespace lwm::app {

// Flags that every computing command takes.
struct RunFlags {
  int threads = 0;  // 0 = cores of this machine / ranks on it
  config::Dtype dtype = config::Dtype::kBF16;
  uint64_t seed = 42;
};
void AddRunFlags(CLI::App& command, RunFlags& flags);

// The ranks of this process and its thread count, set up from the flags; one per process.
class RunContext {
 public:
  explicit RunContext(const RunFlags& flags);
  dist::Communicator& world() { return *world_; }
  bool is_root() const { return world_->rank() == 0; }
  int threads() const { return threads_; }

 private:
  std::unique_ptr<dist::Communicator> world_;
  int threads_;
};

// Reads stdin to its end.
std::string ReadStdin();

// Registers an example line shown at the end of --help.
void AddExamples(CLI::App& command, const std::string& examples);

}  // namespace lwm::app
