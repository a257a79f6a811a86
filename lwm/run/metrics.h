#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "lwm/base/json.h"

namespace lwm::run {

// The logged numbers of one optimizer step.
struct StepMetrics {
  int64_t step = 0;    // 1 for the first
  int64_t tokens = 0;  // trained on since the beginning, padding not counted
  double loss = 0, text_loss = 0, vision_loss = 0;
  double lr = 0, grad_norm = 0;
  double tokens_per_s = 0;
  double attention_tflops = 0;  // useful attention work of all ranks / time of the whole step
  double peak_gib = 0;          // sum over all ranks
};
Json ToJson(const StepMetrics& metrics);

// The lines of a file of JSON objects, one per line, each with a "step". A torn last line (the
// writer was killed) and damaged lines are left out: a damaged log must not end the run. `damage`
// then says in one line how many there are and what is wrong with the first; else it is empty. No
// file: no lines.
std::vector<Json> ReadStepLog(const std::filesystem::path& file, std::string* damage = nullptr);

// Appends to such a file.
class StepLog {
 public:
  // Opens for a run that resumes after `last_step`: lines beyond it are dropped, so that no step is
  // there twice, and damaged ones. `csv` keeps the same as a table beside it (x.csv for x.jsonl),
  // with the keys of the first line as columns. Throws Error(kInvalidArgument) when the file cannot
  // be written, Error(kResourceExhausted) when the disk is full.
  StepLog(const std::filesystem::path& file, int64_t last_step, bool csv = false);

  // Describes the damaged lines that were dropped, as ReadStepLog does; empty: none.
  const std::string& damage() const { return damage_; }

  // One line, handed to the system before this returns. Throws Error(kResourceExhausted) when the
  // disk is full.
  void Append(const Json& line);

 private:
  std::string CsvRow(const Json& line);

  std::filesystem::path path_;
  std::string damage_;
  std::ofstream file_, csv_;
  std::vector<std::string> columns_;
};

// "step 120/2000  loss 3.2140  lr 3.00e-04  12.3K tokens/s  4 min 05 s left  1.2 GiB"
std::string ProgressLine(const StepMetrics& metrics, int64_t steps, double seconds_left);

// Useful attention work of one training step in floating point operations: forward 4 * K per query
// head, layer and allowed pair, backward 2.5 times that.
double AttentionFlops(double allowed_pairs, int64_t layers, int64_t heads, int64_t head_dim);

}  // namespace lwm::run
