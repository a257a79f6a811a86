#include "command.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "commands.h"
#include "lwm/base/process.h"

namespace lwm::app {

std::vector<const Command*>& Commands() {
  static std::vector<const Command*> commands;
  return commands;
}

Command::Command(const char* command_name, void (*add_command)(CLI::App& root))
    : name(command_name), add(add_command) {
  Commands().push_back(this);
}

void AddRunFlags(CLI::App& command, RunFlags& flags) {
  command
      .add_option("--threads", flags.threads, "threads per rank (0: cores / ranks on this node)")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--dtype", flags.dtype, "arithmetic of matmul inputs")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command.add_option("--seed", flags.seed, "seed of everything random")->capture_default_str();
}

Session::Session(const RunFlags& flags) : world_(dist::MakeWorldCommunicator()) {
  // Open MPI may bind a rank to one core; without binding the ranks of a node share its cores.
  const int share = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) /
                                    std::max(1, dist::RanksOnThisNode()));
  threads_ = flags.threads > 0 ? flags.threads : std::min(share, AllowedCores());
  at::set_num_threads(threads_);
}

void AddExamples(CLI::App& command, const std::string& examples) {
  command.footer("Examples:\n" + examples);
}

}  // namespace lwm::app
