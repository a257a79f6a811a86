// `lwm bench vqgan`: images to codes and back.
#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>

#include "bench/bench.h"
#include "flags/model_flags.h"
#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/checkpoint/vqgan_import.h"

namespace lwm::app {
namespace {

struct VqganBenchFlags {
  std::string model;
  int64_t batch = 4;
};

struct Cost {
  double seconds = 1e9;
  double core_seconds = 1e9;  // processor time: tells more than the clock on a busy machine
};

// Best of three after one to warm up.
Cost BestOf(const std::function<void()>& run) {
  run();
  Cost best;
  for (int i = 0; i < 3; ++i) {
    const double start = MonotonicSeconds(), start_core = ProcessSeconds();
    run();
    best.seconds = std::min(best.seconds, MonotonicSeconds() - start);
    best.core_seconds = std::min(best.core_seconds, ProcessSeconds() - start_core);
  }
  return best;
}

vision::Vqgan MakeVqgan(const VqganBenchFlags& flags, const RunFlags& run) {
  if (!flags.model.empty()) return checkpoint::LoadVqgan(flags.model, ScalarTypeOf(run));
  const config::VqganConfig published;
  return vision::Vqgan(published, vision::RandomVqganWeights(published, run.seed),
                       ScalarTypeOf(run));
}

Json Measure(RunContext& context, const VqganBenchFlags& flags, const RunFlags& run) {
  RequireOneRank(context, "bench vqgan");
  at::manual_seed(run.seed);
  const vision::Vqgan vqgan = MakeVqgan(flags, run);
  const int64_t side = vqgan.config().sample_size;
  const at::Tensor images_NHWC = at::rand({flags.batch, side, side, 3}).mul_(2).sub_(1);
  const at::Tensor codes_Nhw = vqgan.Encode(images_NHWC);
  const auto frames = static_cast<double>(flags.batch);
  Json result;
  const Cost encode = BestOf([&] { vqgan.Encode(images_NHWC); });
  result["encode_frames_per_s"] = frames / encode.seconds;
  result["encode_core_seconds_per_frame"] = encode.core_seconds / frames;
  const Cost decode = BestOf([&] { vqgan.Decode(codes_Nhw); });
  result["decode_frames_per_s"] = frames / decode.seconds;
  result["decode_core_seconds_per_frame"] = decode.core_seconds / frames;
  result["batch"] = flags.batch;
  result["image_size"] = side;
  result["weights"] = vqgan.config().ParameterCount();
  result["dtype"] = run.dtype;
  return result;
}

}  // namespace

Bench::Measure AddVqganBench(CLI::App& command) {
  auto flags = std::make_shared<VqganBenchFlags>();
  command.add_option("-m,--model", flags->model,
                     "VQGAN directory (default: random weights of the published size)");
  command.add_option("--batch", flags->batch, "images at once")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  AddExamples(command,
              "  lwm bench vqgan --batch 4\n"
              "  lwm bench vqgan --model samples/vqgan-clipart --batch 16 --dtype f32");
  return
      [flags](RunContext& context, const RunFlags& run) { return Measure(context, *flags, run); };
}

}  // namespace lwm::app
