#include "bench/bench.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <memory>
#include <utility>

#include "commands.h"
#include "lwm/base/process.h"
#include "lwm/ops/product.h"
#include "lwm/run/run_loop.h"

namespace lwm::app {
namespace {

void Run(const Bench::Measure& measure, const RunFlags& flags) {
  RunContext context(flags);
  const double matmul_gflops = MeasureMatmulGflops();
  Json result = measure(context, flags);
  result["matmul_gflops"] = matmul_gflops;
  result["threads"] = context.threads();
  result["ranks"] = context.world().size();
  result["peak_gib"] = run::PeakGib(context.world());
  if (context.is_root()) std::printf("%s\n", result.dump().c_str());
}

// Nothing of its own: every bench reports the product.
Bench::Measure AddMatmulBench(CLI::App&) {
  return [](RunContext&, const RunFlags&) { return Json::object(); };
}

// In the order of `lwm bench --help`.
constexpr Bench kBenches[] = {
    {"attention", "exact attention over all ranks, forward and backward", AddAttentionBench},
    {"matmul", "bf16 2048^3 through LibTorch", AddMatmulBench},
    {"convert", "a 7B-shaped file into another format, against a copy of it", AddConvertBench},
    {"decode", "tokens/s one by one, at some depths of the cache", AddDecodeBench},
    {"prefill", "tokens/s of prompts of some lengths", AddPrefillBench},
    {"ops", "norm, rotary, SwiGLU, linear, feed-forward, fused loss", AddOpsBench},
    {"train-step", "one optimizer step on random tokens", AddTrainStepBench},
    {"vqgan", "images to codes and back", AddVqganBench},
    {"vqgan-train", "optimizer steps of a small VQGAN", AddVqganTrainBench},
};

}  // namespace

void AddBench(CLI::App& command) {
  command.require_subcommand(1);
  for (const Bench& bench : kBenches) {
    CLI::App* what = command.add_subcommand(bench.name, bench.summary);
    auto flags = std::make_shared<RunFlags>();
    AddRunFlags(*what, *flags);
    what->add_flag("--json")->group("");  // not in help: a bench always prints JSON
    what->callback([measure = bench.add(*what), flags] { Run(measure, *flags); });
  }
  // After the loop: commands inherit what stands here before them.
  AddExamples(command,
              "  lwm bench attention --tokens 16384 --heads 4 --head-dim 128\n"
              "  mpirun -np 2 lwm bench train-step --tokens 4096");
}

double MeasureMatmulGflops() {
  constexpr int64_t n = 2048;
  const at::Tensor a = at::randn({n, n}).to(at::kBFloat16), b = at::randn({n, n}).to(at::kBFloat16);
  at::Tensor product = at::empty_like(a);  // kept: a fresh one would be timed with its page faults
  double best_seconds = 1e9;
  for (int i = 0; i < 8; ++i) {
    const double start = MonotonicSeconds();
    ops::ProductInto(product, a, b);
    best_seconds = std::min(best_seconds, MonotonicSeconds() - start);
  }
  return 2.0 * n * n * n / best_seconds / 1e9;
}

}  // namespace lwm::app
