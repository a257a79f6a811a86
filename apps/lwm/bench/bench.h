#pragma once

#include <functional>
#include <map>
#include <string>

#include "command.h"
#include "lwm/base/json.h"

namespace lwm::app {

// One `lwm bench WHAT` of the list in bench.cc: `add` declares its flags on the subcommand and
// returns the function that measures and gives its own fields; bench.cc adds matmul_gflops,
// threads, ranks and peak_gib and prints the object.
struct Bench {
  using Measure = std::function<Json(RunContext& context, const RunFlags& flags)>;
  const char* name;
  const char* summary;
  Measure (*add)(CLI::App& command);
};

// Their `add`, each defined in the file of its name, AddTrainStepBench in bench/train_step.cc;
// AddPrefillBench in bench/decode.cc, where both measure the cache.
Bench::Measure AddAttentionBench(CLI::App& command);
Bench::Measure AddConvertBench(CLI::App& command);
Bench::Measure AddDecodeBench(CLI::App& command);
Bench::Measure AddPrefillBench(CLI::App& command);
Bench::Measure AddOpsBench(CLI::App& command);
Bench::Measure AddTrainStepBench(CLI::App& command);
Bench::Measure AddVqganBench(CLI::App& command);
Bench::Measure AddVqganTrainBench(CLI::App& command);

// Largest of several measurements of bf16 2048^3 through ops::ProductInto on all threads, GFLOP/s.
double MeasureMatmulGflops();

}  // namespace lwm::app
