#include "lwm/ops/conv/group_norm_silu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/kernels/elementwise/group_norm.h"
#include "lwm/ops/element.h"

namespace lwm::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

// Runs of pixels of one image, one a task, of about 65536 numbers. They depend on the shape only,
// so that results do not depend on the number of threads.
struct PixelRuns {
  explicit PixelRuns(const at::Tensor& x_NCHW)
      : images(x_NCHW.size(0)),
        channels(x_NCHW.size(1)),
        pixels(x_NCHW.size(2) * x_NCHW.size(3)),
        run(std::max<int64_t>(32, (int64_t{1} << 16) / std::max<int64_t>(channels, 1))),
        runs((pixels + run - 1) / run) {}

  int64_t tasks() const { return images * runs; }
  int64_t image(int64_t task) const { return task / runs; }
  int64_t length(int64_t i) const { return std::min(run, pixels - i * run); }
  // Of the first element.
  int64_t offset(int64_t task) const {
    return (image(task) * pixels + task % runs * run) * channels;
  }

  int64_t images, channels, pixels, run, runs;
};

// body(task, offset of its first element, pixels) in parallel.
template <class Body>
void ForEachRun(const PixelRuns& runs, const Body& body) {
  at::parallel_for(0, runs.tasks(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task)
      body(task, runs.offset(task), static_cast<size_t>(runs.length(task % runs.runs)));
  });
}

// The input of silu, v = (x - shift) * slope + offset, and the statistics behind it. x - mean comes
// first: x * slope + (offset - mean * slope) would cancel where the mean is many deviations. The
// mean's rounding to f32 goes into the offset.
struct Affine {
  at::Tensor factors_3NC;  // f32: shift, which is the group's mean, rounded; slope; offset
  at::Tensor moments_2NG;  // f64: mean - shift; 1 / sqrt(var + eps)

  kernels::ChannelAffine image(int64_t n) const {
    const int64_t rows = factors_3NC.size(1), channels = factors_3NC.size(2);
    const float* shift = factors_3NC.const_data_ptr<float>() + n * channels;
    return {shift, shift + rows * channels, shift + 2 * rows * channels};
  }
  int64_t groups() const { return moments_2NG.size(2); }
  double rest(int64_t ng) const { return moments_2NG.const_data_ptr<double>()[ng]; }
  double rstd(int64_t ng) const {
    return moments_2NG.const_data_ptr<double>()[moments_2NG.size(1) * groups() + ng];
  }
};

struct Moments {
  at::Tensor mean_TC, square_TC;  // f64, per run and channel
};

// Per run and channel, not per group: the kernel runs along channels, which are last in memory.
Moments MeasureRuns(const at::Tensor& x_NCHW, const PixelRuns& runs) {
  const auto f64 = at::TensorOptions(at::kDouble);
  Moments moments{at::empty({runs.tasks(), runs.channels}, f64),
                  at::empty({runs.tasks(), runs.channels}, f64)};
  double* mean = moments.mean_TC.mutable_data_ptr<double>();
  double* square = moments.square_TC.mutable_data_ptr<double>();
  DispatchElement(x_NCHW, [&](auto element) {
    using T = decltype(element);
    const T* x = Elements<T>(x_NCHW);
    ForEachRun(runs, [&](int64_t task, int64_t offset, size_t pixels) {
      const int64_t to = task * runs.channels;
      kernels::ChannelMoments(x + offset, pixels, static_cast<size_t>(runs.channels), mean + to,
                              square + to);
    });
  });
  return moments;
}

// Joins the moments of all runs and channels of one group: the mean first, then the variance about
// it, in f64.
struct GroupMoments {
  double mean = 0, variance = 0;
};
GroupMoments JoinGroup(const Moments& moments, const PixelRuns& runs, int64_t n, int64_t first,
                       int64_t width) {
  const double* mean = moments.mean_TC.const_data_ptr<double>();
  const double* square = moments.square_TC.const_data_ptr<double>();
  const auto visit = [&](const auto& body) {
    for (int64_t i = 0; i < runs.runs; ++i)
      for (int64_t c = 0; c < width; ++c)
        body((n * runs.runs + i) * runs.channels + first + c, static_cast<double>(runs.length(i)));
  };
  const double count = static_cast<double>(runs.pixels * width);
  GroupMoments group;
  visit([&](int64_t at, double pixels) { group.mean += mean[at] * pixels / count; });
  visit([&](int64_t at, double pixels) {
    const double apart = mean[at] - group.mean;
    group.variance += (square[at] + apart * apart * pixels) / count;
  });
  return group;
}

std::vector<double> ToDoubles(const at::Tensor& x_C) {
  const at::Tensor x = x_C.contiguous();
  std::vector<double> values(static_cast<size_t>(x.numel()));
  if (x.scalar_type() == at::kFloat) {
    std::copy_n(x.const_data_ptr<float>(), x.numel(), values.begin());
  } else {
    std::copy_n(x.const_data_ptr<at::BFloat16>(), x.numel(), values.begin());
  }
  return values;
}

Affine MakeAffine(const at::Tensor& x_NCHW, const at::Tensor& scale_C, const at::Tensor& bias_C,
                  int64_t groups, double eps) {
  const PixelRuns runs(x_NCHW);
  const Moments moments = MeasureRuns(x_NCHW, runs);
  const std::vector<double> scale = ToDoubles(scale_C), bias = ToDoubles(bias_C);
  const Affine affine{at::empty({3, runs.images, runs.channels}, at::kFloat),
                      at::empty({2, runs.images, groups}, at::kDouble)};
  float* shift_NC = affine.factors_3NC.mutable_data_ptr<float>();
  float* slope_NC = shift_NC + runs.images * runs.channels;
  float* offset_NC = slope_NC + runs.images * runs.channels;
  double* rest_NG = affine.moments_2NG.mutable_data_ptr<double>();
  double* rstd_NG = rest_NG + runs.images * groups;
  const int64_t width = runs.channels / groups;
  for (int64_t ng = 0; ng < runs.images * groups; ++ng) {
    const int64_t n = ng / groups, first = ng % groups * width;
    const GroupMoments group = JoinGroup(moments, runs, n, first, width);
    const auto shift = static_cast<float>(group.mean);
    rest_NG[ng] = group.mean - static_cast<double>(shift);
    rstd_NG[ng] = 1 / std::sqrt(group.variance + eps);
    for (int64_t c = first; c < first + width; ++c) {
      const double slope = rstd_NG[ng] * scale[static_cast<size_t>(c)];
      shift_NC[n * runs.channels + c] = shift;
      slope_NC[n * runs.channels + c] = static_cast<float>(slope);
      offset_NC[n * runs.channels + c] =
          static_cast<float>(bias[static_cast<size_t>(c)] - rest_NG[ng] * slope);
    }
  }
  return affine;
}

at::Tensor Apply(const at::Tensor& x_NCHW, const Affine& affine) {
  const PixelRuns runs(x_NCHW);
  const at::Tensor y_NCHW = at::empty_like(x_NCHW);
  DispatchElement(x_NCHW, [&](auto element) {
    using T = decltype(element);
    const T* x = Elements<T>(x_NCHW);
    T* y = MutableElements<T>(y_NCHW);
    ForEachRun(runs, [&](int64_t task, int64_t offset, size_t pixels) {
      kernels::NormSilu(x + offset, pixels, static_cast<size_t>(runs.channels),
                        affine.image(runs.image(task)), y + offset);
    });
  });
  return y_NCHW;
}

// Sums over the pixels of each run of dv and dv * (x - shift), f64 [tasks,C].
struct ChannelSums {
  at::Tensor sum_TC, dot_TC;
};

ChannelSums SumGradients(const at::Tensor& dy_NCHW, const at::Tensor& x_NCHW,
                         const Affine& affine) {
  const PixelRuns runs(x_NCHW);
  const ChannelSums sums{at::empty({runs.tasks(), runs.channels}, at::kDouble),
                         at::empty({runs.tasks(), runs.channels}, at::kDouble)};
  double* sum = sums.sum_TC.mutable_data_ptr<double>();
  double* dot = sums.dot_TC.mutable_data_ptr<double>();
  DispatchElement(x_NCHW, [&](auto element) {
    using T = decltype(element);
    const T *dy = Elements<T>(dy_NCHW), *x = Elements<T>(x_NCHW);
    ForEachRun(runs, [&](int64_t task, int64_t offset, size_t pixels) {
      const int64_t to = task * runs.channels;
      kernels::NormSiluSums(dy + offset, x + offset, pixels, static_cast<size_t>(runs.channels),
                            affine.image(runs.image(task)), sum + to, dot + to);
    });
  });
  return sums;
}

// The gradients, from the sums over a group:
//   dx = dv slope - rstd mean(dv scale) - (x - mean) rstd^2 mean(dv scale (x - mean) rstd),
// with means over the group. For the kernel, relative to the shift, the second term is level and
// the factor of (x - mean) is pull.
struct Gradients {
  explicit Gradients(const PixelRuns& runs)
      : level_NC(static_cast<size_t>(runs.images * runs.channels)),
        pull_NC(level_NC.size()),
        scale_C(at::zeros({runs.channels}, at::kDouble)),
        bias_C(at::zeros({runs.channels}, at::kDouble)) {}
  std::vector<float> level_NC, pull_NC;
  at::Tensor scale_C, bias_C;  // f64
};

// Adds the contribution of group `g` of image `n`. Sums are about the shift; `rest` corrects them
// to the mean.
void AddGroup(const ChannelSums& sums, const PixelRuns& runs, const Affine& affine, int64_t n,
              int64_t g, Gradients& gradients) {
  const int64_t width = runs.channels / affine.groups(), first = g * width;
  const double rest = affine.rest(n * affine.groups() + g);
  const double rstd = affine.rstd(n * affine.groups() + g);
  const double* sum_TC = sums.sum_TC.const_data_ptr<double>();
  const double* dot_TC = sums.dot_TC.const_data_ptr<double>();
  const float* slope_C = affine.image(n).slope_C;
  double* scale_C = gradients.scale_C.mutable_data_ptr<double>();
  double* bias_C = gradients.bias_C.mutable_data_ptr<double>();
  double mean_sum = 0, mean_dot = 0;
  for (int64_t c = first; c < first + width; ++c) {
    double sum = 0, dot = 0;
    for (int64_t task = n * runs.runs; task < (n + 1) * runs.runs; ++task) {
      sum += sum_TC[task * runs.channels + c];
      dot += dot_TC[task * runs.channels + c];
    }
    dot -= rest * sum;
    bias_C[c] += sum;
    scale_C[c] += dot * rstd;
    mean_sum += sum * static_cast<double>(slope_C[c]);
    mean_dot += dot * static_cast<double>(slope_C[c]);
  }
  const auto count = static_cast<double>(width * runs.pixels);
  const double pull = rstd * rstd * mean_dot / count, level = mean_sum / count - rest * pull;
  const int64_t at = n * runs.channels + first;
  std::fill_n(gradients.pull_NC.begin() + at, width, static_cast<float>(pull));
  std::fill_n(gradients.level_NC.begin() + at, width, static_cast<float>(level));
}

// On one thread and in order: the sums are few, and the bits the same for any number of threads.
Gradients JoinSums(const ChannelSums& sums, const PixelRuns& runs, const Affine& affine) {
  Gradients gradients(runs);
  for (int64_t n = 0; n < runs.images; ++n)
    for (int64_t g = 0; g < affine.groups(); ++g) AddGroup(sums, runs, affine, n, g, gradients);
  return gradients;
}

at::Tensor InputGradient(const at::Tensor& dy_NCHW, const at::Tensor& x_NCHW, const Affine& affine,
                         const Gradients& gradients) {
  const PixelRuns runs(x_NCHW);
  const float *level = gradients.level_NC.data(), *pull = gradients.pull_NC.data();
  const at::Tensor dx_NCHW = at::empty_like(x_NCHW);
  DispatchElement(x_NCHW, [&](auto element) {
    using T = decltype(element);
    const T *dy = Elements<T>(dy_NCHW), *x = Elements<T>(x_NCHW);
    T* dx = MutableElements<T>(dx_NCHW);
    ForEachRun(runs, [&](int64_t task, int64_t offset, size_t pixels) {
      const int64_t n = runs.image(task);
      kernels::NormSiluBackward(dy + offset, x + offset, pixels, static_cast<size_t>(runs.channels),
                                affine.image(n),
                                {level + n * runs.channels, pull + n * runs.channels}, dx + offset);
    });
  });
  return dx_NCHW;
}

class GroupNormSiluFunction : public torch::autograd::Function<GroupNormSiluFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_NCHW,
                            const at::Tensor& scale_C, const at::Tensor& bias_C, int64_t groups,
                            double eps) {
    const Affine affine = MakeAffine(x_NCHW, scale_C, bias_C, groups, eps);
    // x and a few statistics; neither v nor silu(v), which are as large as x.
    context->save_for_backward({x_NCHW, affine.factors_3NC, affine.moments_2NG});
    context->saved_data["scale_type"] = static_cast<int64_t>(scale_C.scalar_type());
    context->saved_data["bias_type"] = static_cast<int64_t>(bias_C.scalar_type());
    return Apply(x_NCHW, affine);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    LWM_REQUIRE(!at::GradMode::is_enabled(), "GroupNormSilu has no second derivative");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x_NCHW = saved[0];
    const Affine affine{saved[1], saved[2]};
    const at::Tensor dy_NCHW = gradients[0].to(x_NCHW.scalar_type()).contiguous(kChannelsLast);
    const Gradients all =
        JoinSums(SumGradients(dy_NCHW, x_NCHW, affine), PixelRuns(x_NCHW), affine);
    const auto type = [&](const char* name) {
      return static_cast<at::ScalarType>(context->saved_data[name].toInt());
    };
    const at::Tensor dx_NCHW =
        context->needs_input_grad(0) ? InputGradient(dy_NCHW, x_NCHW, affine, all) : at::Tensor();
    return {dx_NCHW, all.scale_C.to(type("scale_type")), all.bias_C.to(type("bias_type")),
            at::Tensor(), at::Tensor()};
  }
};

void RequireInputs(const at::Tensor& x_NCHW, const at::Tensor& scale_C, const at::Tensor& bias_C,
                   int64_t groups, double eps) {
  LWM_REQUIRE(x_NCHW.dim() == 4 && groups >= 1 && x_NCHW.size(1) % groups == 0,
              "GroupNormSilu: want x [N,C,H,W] with C a multiple of ", groups, " groups, got ",
              x_NCHW.sizes());
  LWM_REQUIRE(
      scale_C.sizes() == at::IntArrayRef{x_NCHW.size(1)} && bias_C.sizes() == scale_C.sizes(),
      "GroupNormSilu: want scale and bias [", x_NCHW.size(1), "], got ", scale_C.sizes(), " and ",
      bias_C.sizes());
  LWM_REQUIRE(eps > 0, "GroupNormSilu: want eps > 0, got ", eps);
  if (x_NCHW.scalar_type() == at::kDouble) return;
  RequireFloatOrBf16("GroupNormSilu", "x", x_NCHW);
  RequireFloatOrBf16("GroupNormSilu", "scale", scale_C);
  RequireFloatOrBf16("GroupNormSilu", "bias", bias_C);
}

}  // namespace

at::Tensor GroupNormSilu(const at::Tensor& x_NCHW, const at::Tensor& scale_C,
                         const at::Tensor& bias_C, int64_t groups, double eps) {
  RequireInputs(x_NCHW, scale_C, bias_C, groups, eps);
  if (x_NCHW.scalar_type() == at::kDouble)
    return at::silu(
        at::group_norm(x_NCHW, groups, scale_C.to(at::kDouble), bias_C.to(at::kDouble), eps));
  if (x_NCHW.numel() == 0) return x_NCHW;
  const at::Tensor x = x_NCHW.contiguous(kChannelsLast);
  // Without a gradient no graph is made, and x is not kept alive.
  const bool differentiable =
      at::GradMode::is_enabled() &&
      (x.requires_grad() || scale_C.requires_grad() || bias_C.requires_grad());
  if (differentiable) return GroupNormSiluFunction::apply(x, scale_C, bias_C, groups, eps);
  return Apply(x, MakeAffine(x, scale_C, bias_C, groups, eps));
}

}  // namespace lwm::ops
