#include "lwm/train/metrics.h"

#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/format.h"
#include "lwm/base/text.h"

namespace lwm::train {
namespace {

// 950, 12.3K, 1.20M.
std::string Count(double value) {
  if (value >= 1e6) return fmt::format("{:.2f}M", value / 1e6);
  if (value >= 1e4) return fmt::format("{:.1f}K", value / 1e3);
  return fmt::format("{:.0f}", value);
}

}  // namespace

Json ToJson(const StepMetrics& m) {
  return {{"step", m.step},
          {"tokens", m.tokens},
          {"loss", m.loss},
          {"text_loss", m.text_loss},
          {"vision_loss", m.vision_loss},
          {"lr", m.lr},
          {"grad_norm", m.grad_norm},
          {"tokens_per_s", m.tokens_per_s},
          {"attention_tflops", m.attention_tflops},
          {"peak_gib", m.peak_gib}};
}

std::vector<Json> ReadStepLog(const std::filesystem::path& file, std::string* damage) {
  if (damage) damage->clear();
  std::vector<Json> lines;
  if (!std::filesystem::exists(file)) return lines;
  const std::string text = ReadFile(file);
  std::string first_problem;
  int64_t number = 0, damaged = 0;
  size_t begin = 0;
  for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string where = Cat(file.string(), ":", ++number);
    // A damaged line is an expected outcome here.
    try {
      Json line = ParseJson(std::string_view(text).substr(begin, end - begin), where);
      JsonGet<int64_t>(line, "step", where);
      lines.push_back(std::move(line));
    } catch (const Error& error) {
      if (damaged++ == 0) first_problem = error.what();
    }
  }
  if (damage && damaged > 0)
    *damage = Cat("left out ", damaged, damaged == 1 ? " damaged line (" : " damaged lines (",
                  first_problem, ")");
  return lines;
}

StepLog::StepLog(const std::filesystem::path& file, int64_t last_step) : path_(file) {
  std::string kept;
  for (const Json& line : ReadStepLog(file, &damage_))
    if (line.at("step").get<int64_t>() <= last_step) kept += line.dump() + "\n";
  WriteFileAtomically(file, kept);
  file_.open(file, std::ios::app);
}

void StepLog::Append(const Json& line) {
  file_ << line.dump() << "\n" << std::flush;
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, file_.good(), "cannot write ", path_.string(),
                 ": is the disk full?");
}

std::string ProgressLine(const StepMetrics& metrics, int64_t steps, double seconds_left) {
  return fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  {} tokens/s  {} left  {:.1f} GiB",
                     metrics.step, steps, metrics.loss, metrics.lr, Count(metrics.tokens_per_s),
                     FormatDuration(seconds_left), metrics.peak_gib);
}

double AttentionFlops(double allowed_pairs, int64_t layers, int64_t heads, int64_t head_dim) {
  return 3.5 * 4.0 * allowed_pairs * static_cast<double>(layers * heads * head_dim);
}

}  // namespace lwm::train
