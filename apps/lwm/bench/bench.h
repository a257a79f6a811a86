#pragma once

#include <functional>
#include <map>
#include <string>

#include "command.h"
#include "lwm/base/json.h"

namespace lwm::app {

// One `lwm bench WHAT`: `add` declares its flags on the subcommand and returns the function that
// measures and gives its own fields; bench.cc adds matmul_gflops, threads, ranks and peak_gib and
// prints the object.
struct Bench {
  using Measure = std::function<Json(RunContext& context, const RunFlags& flags)>;
  Bench(const char* bench_name, const char* bench_help, Measure (*add_bench)(CLI::App& command));
  const char* name;
  const char* help;
  Measure (*add)(CLI::App& command);
};

// Largest of several measurements of bf16 2048^3 through ops::ProductInto on all threads, GFLOP/s.
double MeasureMatmulGflops();

}  // namespace lwm::app
