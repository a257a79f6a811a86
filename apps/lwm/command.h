#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "lwm/config/dtype.h"
#include "lwm/dist/communicator.h"

namespace lwm::app {

// The jobs that `lwm --help` groups commands by, in its order; it leaves out the hidden ones.
enum class Job { kUse, kTrain, kEvaluate, kConvert, kLookInside, kHidden };

// One subcommand: `add` declares it on the root with its flags, help and examples, and sets a
// callback that does the work. A file defines one static Command; main.cc lists them all.
struct Command {
  Command(Job command_job, const char* command_name, void (*add_command)(CLI::App& root));
  Job job;
  const char* name;
  void (*add)(CLI::App& root);
};

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
