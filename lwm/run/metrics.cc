#include "lwm/run/metrics.h"

#include <utility>

#include "lwm/base/count_of.h"
#include "lwm/base/count_text.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/format.h"
#include "lwm/base/text.h"

namespace lwm::run {
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
    *damage = Cat("left out ", CountOf(damaged, "damaged line"), " (", first_problem, ")");
  return lines;
}

StepLog::StepLog(const std::filesystem::path& file, int64_t last_step, bool csv) : path_(file) {
  std::string kept, table;
  for (const Json& line : ReadStepLog(file, &damage_)) {
    if (line.at("step").get<int64_t>() > last_step) continue;
    kept += line.dump() + "\n";
    if (csv) table += CsvRow(line);
  }
  // Rewritten once at the start; afterwards lines are only appended, so a kill can tear the last
  // one at most.
  WriteFileAtomically(file, kept);
  file_.open(file, std::ios::app);
  if (!csv) return;
  const std::filesystem::path csv_file = std::filesystem::path(file).replace_extension(".csv");
  WriteFileAtomically(csv_file, table);
  csv_.open(csv_file, std::ios::app);
}

void StepLog::Append(const Json& line) {
  file_ << line.dump() << "\n" << std::flush;
  if (csv_.is_open()) csv_ << CsvRow(line) << std::flush;
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, file_.good() && csv_.good(), "cannot write ",
                 path_.string(), ": is the disk full?");
}

// The values of the columns; before the first row their names, the step in front.
std::string StepLog::CsvRow(const Json& line) {
  std::string text;
  if (columns_.empty()) {
    columns_ = {text = "step"};
    for (const auto& [name, value] : line.items()) {
      if (name == "step") continue;
      columns_.push_back(name);
      text += "," + name;
    }
    text += "\n";
  }
  for (const std::string& column : columns_)
    text += (column == "step" ? "" : ",") + (line.contains(column) ? line[column].dump() : "");
  return text + "\n";
}

std::string ProgressLine(const StepMetrics& metrics, int64_t steps, double seconds_left) {
  return fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  {} tokens/s  {} left  {:.1f} GiB",
                     metrics.step, steps, metrics.loss, metrics.lr,
                     ShortCount(metrics.tokens_per_s), FormatDuration(seconds_left),
                     metrics.peak_gib);
}

double AttentionFlops(double allowed_pairs, int64_t layers, int64_t heads, int64_t head_dim) {
  return 3.5 * 4.0 * allowed_pairs * static_cast<double>(layers * heads * head_dim);
}

}  // namespace lwm::run
