#include "command.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>

#include "flags/dtype_flag.h"
#include "lwm/base/core_contention.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/dist/launcher.h"
#include "lwm/io/video_reader.h"

namespace lwm::app {

void AddRunFlags(CLI::App& command, RunFlags& flags) {
  command
      .add_option("-t,--threads", flags.threads,
                  "threads per rank (0: OMP_NUM_THREADS, or cores / ranks on this node)")
      ->check(CLI::NonNegativeNumber);
  AddDtypeFlag(command, "--dtype", flags.dtype, {"bf16", "f32"}, "arithmetic of matmul inputs");
  command.add_option("--seed", flags.seed, "seed of everything random")->capture_default_str();
}

namespace {

// The first number of OMP_NUM_THREADS, which may be a list; 0 if it is not set.
int ThreadsOfEnvironment() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  if (!text || !*text) return 0;
  char* end = nullptr;
  const long threads = std::strtol(text, &end, 10);
  LWM_REQUIRE(end != text && (*end == 0 || *end == ',') && threads >= 1 && threads <= INT_MAX,
              "OMP_NUM_THREADS=", text, ": want a number of threads, 1 or more");
  return static_cast<int>(threads);
}

// More threads than this are never of use, and their stacks could exhaust the memory.
void RequireSensible(int threads, const char* who) {
  const int most = std::max(64, 4 * MachineCores());
  LWM_REQUIRE(threads <= most, who, " asks for ", CountOf(threads, "thread"), "; this machine has ",
              CountOf(MachineCores(), "core"), ", want at most ", most);
}

int ChooseThreads(int flag, const dist::Communicator& world) {
  if (flag > 0) {
    RequireSensible(flag, "--threads");
    return flag;
  }
  if (const int threads = ThreadsOfEnvironment()) {
    RequireSensible(threads, "OMP_NUM_THREADS");
    return threads;
  }
  // Without binding the ranks of a machine share its cores.
  const int share = std::max(1, MachineCores() / std::max(1, dist::RanksOnThisNode()));
  const int threads = std::min(share, AllowedCores());
  if (threads < share && dist::StartedByLauncher() && world.rank() == 0) {
    std::fprintf(stderr,
                 "lwm: this rank is bound to %s of %d; mpirun --bind-to none lets it use %d\n",
                 CountOf(AllowedCores(), "core").c_str(), MachineCores(), share);
  }
  return threads;
}

// From now to the end of the process ranks that wait for each other yield contended cores.
void WatchCores(int threads) { static const ContentionWatch watch(threads, {}); }

}  // namespace

RunContext::RunContext(const RunFlags& flags)
    : world_(dist::MakeWorldCommunicator()), threads_(ChooseThreads(flags.threads, *world_)) {
  at::set_num_threads(threads_);
  if (world_->size() > 1) WatchCores(threads_);
  io::SetVideoThreads(threads_);
}

std::string ReadStdin() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

void AddExamples(CLI::App& command, const std::string& examples) {
  command.footer("Examples:\n" + examples);
}

}  // namespace lwm::app
