// lwm: train, run and convert large world models. Every subcommand lives in a file of its own; here
// flags become one call and errors become exit codes: 0 done, 2 wrong usage, 1 anything else.

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <string>
#include <thread>

#include "arguments.h"
#include "commands.h"
#include "lwm/base/allocator.h"
#include "lwm/base/core_contention.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/note.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/dist/communicator.h"
#include "lwm/dist/launcher.h"
#include "lwm/kernels/instruction_set.h"
#include "version.h"

namespace lwm::app {
namespace {

void AddAll(CLI::App& root) {
  for (const Command& command : Commands()) {
    CLI::App* added = root.add_subcommand(command.name, command.summary);
    command.add(*added);
    added->group(command.group);  // last: subcommands of its own would inherit the heading
  }
}

int ExitCode(const Error& error) { return error.code() == ErrorCode::kInvalidArgument ? 2 : 1; }

// Reports on stderr and ends: all ranks when several run, since the others may wait for this one.
// An error that all ranks have is printed once: other ranks wait for rank 0 to print it and to end
// them. `alike`: all ranks are known to have it, so the others print nothing.
int Fail(const std::string& message, int exit_code, bool alike = false) {
  constexpr std::chrono::seconds kTimeForRank0(3);
  const bool is_other = dist::StartedByLauncher() && dist::LaunchedRank() > 0;
  if (is_other) std::this_thread::sleep_for(kTimeForRank0);
  if (is_other && alike) return exit_code;
  std::fprintf(stderr, "lwm: %s\n", WithoutControls(message).c_str());
  if (dist::StartedByLauncher()) dist::AbortAllRanks(exit_code);
  return exit_code;
}

int FailWithoutMemory() {
  const double peak = static_cast<double>(PeakMemoryBytes());
  return Fail(Cat("out of memory; ", FormatBytes(peak), " were in use at the peak"), 1);
}

int Main(int argc, char** argv) {
  CLI::App root("lwm: large world models, from 1K to 1M tokens of text and vision", "lwm");
  if (dist::LaunchedRank() > 0) SilenceNotes();
  root.require_subcommand(1);
  root.set_version_flag("--version", VersionText);
  root.footer("lwm COMMAND --help teaches by example. Several ranks: mpirun -np N lwm COMMAND ...");
  AddAll(root);
  try {
    kernels::HoldInstructions();
    root.parse(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout))
      return Fail(Cat("the results could not be written: ", std::strerror(errno)), 1);
    return 0;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return root.exit(error);  // --help, --version
    return Fail(ExplainParseError(root, error, {argv + 1, argv + argc}), 2, /*alike=*/true);
  } catch (const Error& error) {
    return Fail(error.what(), ExitCode(error));
  } catch (const std::bad_alloc&) {
    return FailWithoutMemory();
  } catch (const std::filesystem::filesystem_error& error) {
    return Fail(ExplainFileError(error), 1);
  } catch (const std::exception& error) {
    const std::string text = error.what();
    if (text.find("DefaultCPUAllocator") != std::string::npos) return FailWithoutMemory();
    return Fail(text.substr(0, text.find('\n')), 1);
  }
}

// mpirun -np 1 on a machine of many cores would otherwise compute on one of them.
void UseAllCores(char** argv) {
  if (!dist::UndoDefaultBinding()) return;
  if (dist::LaunchedRank() == 0)
    std::fprintf(stderr,
                 "lwm: mpirun bound each rank to a core; they may now use all %s "
                 "(--bind-to core keeps them there)\n",
                 CountOf(AllowedCores(), "core").c_str());
  execv("/proc/self/exe", argv);  // libraries counted cores when they were loaded
}

// GCC's OpenMP lets waiting threads keep their cores busy for milliseconds, which is quickest on an
// idle machine but stops everything beside other programs. It reads its settings when it is loaded.
void WaitShortlyBesideOthers(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  if (AllowedCores() == 1 || dist::StartedByLauncher())
    return;  // other ranks would count as other programs
  const CoreTimes before = ReadCoreTimes();
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  if (CoresOfOthers(before, ReadCoreTimes()) < 0.25 + 0.02 * AllowedCores()) return;
  setenv("GOMP_SPINCOUNT", "100", 1);
  execv("/proc/self/exe", argv);
}

}  // namespace
}  // namespace lwm::app

int main(int argc, char** argv) {
  lwm::app::UseAllCores(argv);
  lwm::app::WaitShortlyBesideOthers(argv);
  lwm::ConfigureAllocator();
  return lwm::app::Main(argc, argv);
}
