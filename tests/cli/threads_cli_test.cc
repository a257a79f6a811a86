// How many threads and which instructions a command computes with, as its environment says.
#include <gtest/gtest.h>

#include <string>

#include "lwm/base/json.h"
#include "tests/cli/run_program.h"

namespace lwm::app {
namespace {

using testing_support::ProgramResult;

ProgramResult RunWith(const std::string& environment, const std::string& arguments) {
  return testing_support::RunLwmIn(
      [&](const std::string& command) { return Cat("env ", environment, " ", command); }, arguments,
      "");
}

int Threads(const std::string& environment, const std::string& arguments) {
  const ProgramResult run = RunWith(environment, "bench matmul " + arguments);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  return ParseJson(run.out, "bench").at("threads").get<int>();
}

void ExpectRefused(const ProgramResult& run, const std::string& says) {
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.err.find(says), std::string::npos) << run.err;
}

TEST(ThreadsCliTest, EnvironmentSaysHowManyAndTheFlagBeatsIt) {
  EXPECT_EQ(Threads("OMP_NUM_THREADS=1", ""), 1);
  EXPECT_EQ(Threads("OMP_NUM_THREADS=2,1", ""), 2);
  EXPECT_EQ(Threads("OMP_NUM_THREADS=2", "--threads 1"), 1);
}

TEST(ThreadsCliTest, NumbersThatNoMachineNeedsAreRefused) {
  ExpectRefused(RunWith("A=b", "bench matmul --threads 100000"),
                "lwm: --threads asks for 100000 threads; this machine has ");
  ExpectRefused(RunWith("OMP_NUM_THREADS=100000", "bench matmul"), "OMP_NUM_THREADS asks for");
  ExpectRefused(RunWith("OMP_NUM_THREADS=many", "bench matmul"),
                "OMP_NUM_THREADS=many: want a number of threads");
}

TEST(ThreadsCliTest, UnknownInstructionSetsAreRefused) {
  ExpectRefused(RunWith("LWM_MAX_ISA=sse9", "bench matmul"), "LWM_MAX_ISA=sse9: want avx2, ");
}

}  // namespace
}  // namespace lwm::app
