// `lwm bench ops`: the elementwise kernels against memory, the matmul ops against matmul.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "flags/model_flags.h"
#include "lwm/base/process.h"
#include "lwm/kernels/elementwise/swiglu.h"
#include "lwm/ops/feed_forward.h"
#include "lwm/ops/fused_loss.h"
#include "lwm/ops/linear.h"
#include "lwm/ops/rms_norm.h"
#include "lwm/ops/rope.h"

namespace lwm::app {
namespace {

struct OpsFlags {
  int64_t tokens = 4096, dim = 1024, ffn = 2816, vocab = 32000, head_dim = 128;
};

// Best of at least five runs and half a second.
double BestSeconds(const std::function<void()>& run) {
  run();
  double best = 1e9, total = 0;
  for (int i = 0; i < 5 || total < 0.5; ++i) {
    const double start = MonotonicSeconds();
    run();
    const double seconds = MonotonicSeconds() - start;
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

class OpsBench {
 public:
  OpsBench(const OpsFlags& flags, at::ScalarType dtype) : flags_(flags), dtype_(dtype) {}

  Json Measure() {
    MeasureRmsNorm();
    MeasureRope();
    MeasureSwiglu();
    MeasureLinear();
    MeasureFeedForward();
    MeasureFusedLoss();
    return result_;
  }

 private:
  at::Tensor Random(at::IntArrayRef sizes, double scale = 1) const {
    return (at::randn(sizes) * scale).to(dtype_);
  }
  void Bandwidth(const char* name, double elements, const std::function<void()>& run) {
    const double bytes = elements * static_cast<double>(at::elementSize(dtype_));
    result_[std::string(name) + "_gb_per_s"] = bytes / BestSeconds(run) / 1e9;
  }
  void Speed(const char* name, double flop, const std::function<void()>& run) {
    result_[std::string(name) + "_gflops"] = flop / BestSeconds(run) / 1e9;
  }

  void MeasureRmsNorm() {
    const at::Tensor x = Random({flags_.tokens, flags_.dim}), w = Random({flags_.dim});
    const at::Tensor dy = Random(x.sizes());
    at::Tensor dw = at::zeros({flags_.dim});
    const auto count = static_cast<double>(x.numel());
    Bandwidth("rms_norm", 2 * count, [&] { ops::RmsNorm(x, w, 1e-6); });
    Bandwidth("rms_norm_backward", 3 * count, [&] { ops::RmsNormBackward(dy, x, w, 1e-6, dw); });
  }

  void MeasureRope() {
    const int64_t heads = std::max<int64_t>(1, flags_.dim / flags_.head_dim);
    at::Tensor x = Random({flags_.tokens, heads, flags_.head_dim});
    std::vector<double> frequency_R;
    for (int64_t r = 0; r < flags_.head_dim / 2; ++r)
      frequency_R.push_back(1.0 / static_cast<double>(1 + r));
    const at::Tensor position_T = at::arange(flags_.tokens, at::kLong);
    const ops::RopeTable table = ops::MakeRopeTable(position_T, frequency_R, 1);
    Bandwidth("rope", 2.0 * static_cast<double>(x.numel()),
              [&] { ops::ApplyRope(x, table, false); });
    result_["rope_table_seconds"] =
        BestSeconds([&] { ops::MakeRopeTable(position_T, frequency_R, 1); });
  }

  void MeasureSwiglu() {
    const at::Tensor gate = Random({flags_.tokens, flags_.ffn}), up = Random(gate.sizes());
    at::Tensor a = at::empty_like(gate);
    const auto on_ranges = [&](const auto& body) {
      at::parallel_for(0, gate.numel(), 1 << 15, body);
    };
    const auto pointer = [](const at::Tensor& x) { return static_cast<uint16_t*>(x.data_ptr()); };
    if (dtype_ == at::kBFloat16) {
      Bandwidth("swiglu", 3.0 * static_cast<double>(gate.numel()), [&] {
        on_ranges([&](int64_t begin, int64_t end) {
          kernels::Swiglu(pointer(gate) + begin, pointer(up) + begin,
                          static_cast<size_t>(end - begin), pointer(a) + begin);
        });
      });
    } else {
      Bandwidth("swiglu", 3.0 * static_cast<double>(gate.numel()), [&] {
        on_ranges([&](int64_t begin, int64_t end) {
          kernels::Swiglu(gate.data_ptr<float>() + begin, up.data_ptr<float>() + begin,
                          static_cast<size_t>(end - begin), a.data_ptr<float>() + begin);
        });
      });
    }
  }

  void MeasureLinear() {
    const at::Tensor x = Random({flags_.tokens, flags_.dim});
    const at::Tensor w = Random({flags_.ffn, flags_.dim}), dy = Random({flags_.tokens, flags_.ffn});
    at::Tensor dw = at::zeros({flags_.ffn, flags_.dim});
    const double flop = 2.0 * static_cast<double>(flags_.tokens * flags_.dim * flags_.ffn);
    Speed("linear", flop, [&] { ops::Linear(x, w); });
    Speed("linear_backward", 2 * flop, [&] { ops::LinearBackward(dy, x, w, dw); });
  }

  void MeasureFeedForward() {
    const auto [tokens, dim, ffn, vocab, head_dim] = flags_;
    const at::Tensor x = Random({tokens, dim}), dy = Random({tokens, dim});
    const ops::FeedForwardWeights weights{Random({ffn, dim}, 0.03), Random({ffn, dim}, 0.03),
                                          Random({dim, ffn}, 0.03)};
    ops::FeedForwardGradients gradients{at::zeros({ffn, dim}), at::zeros({ffn, dim}),
                                        at::zeros({dim, ffn})};
    const double flop = 6.0 * static_cast<double>(tokens * dim * ffn);
    Speed("feed_forward", flop, [&] { ops::FeedForward(x, weights, 2048); });
    // Recomputes gate and up: 8 products against the forward's 3.
    Speed("feed_forward_backward", flop * 8 / 3,
          [&] { ops::FeedForwardBackward(dy, x, weights, 2048, gradients); });
  }

  void MeasureFusedLoss() {
    const at::Tensor x = Random({flags_.tokens, flags_.dim});
    const at::Tensor head = Random({flags_.vocab, flags_.dim}, 0.03);
    const at::Tensor target = at::randint(flags_.vocab, {flags_.tokens}, at::kLong);
    const at::Tensor weight = at::ones({flags_.tokens});
    at::Tensor dhead = at::zeros(head.sizes());
    const double flop = 2.0 * static_cast<double>(x.numel() * flags_.vocab);
    Speed("fused_loss_forward", flop, [&] { ops::FusedLoss(x, head, target, weight, nullptr); });
    Speed("fused_loss", 3 * flop, [&] { ops::FusedLoss(x, head, target, weight, &dhead); });
  }

  OpsFlags flags_;
  at::ScalarType dtype_;
  Json result_ = Json::object();
};

}  // namespace

Bench::Measure AddOpsBench(CLI::App& command) {
  auto flags = std::make_shared<OpsFlags>();
  const auto size = [&](const char* name, int64_t& value, const char* help) {
    command.add_option(name, value, help)
        ->check(CLI::Range(int64_t{2}, int64_t{1} << 24))
        ->capture_default_str();
  };
  size("--tokens", flags->tokens, "tokens");
  size("--dim", flags->dim, "model width");
  size("--ffn", flags->ffn, "feed-forward width");
  size("--vocab", flags->vocab, "vocabulary of the loss");
  size("--head-dim", flags->head_dim, "width of a head, even");
  AddExamples(command, "  lwm bench ops --tokens 4096 --dim 1024 --threads 1");
  return [flags](RunContext&, const RunFlags& run) {
    at::manual_seed(run.seed);
    return OpsBench(*flags, ScalarTypeOf(run)).Measure();
  };
}

}  // namespace lwm::app
