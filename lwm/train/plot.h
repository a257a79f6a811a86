#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace lwm::train {

// One line of a plot: (step, loss) points.
struct Curve {
  std::string title;
  std::vector<std::pair<double, double>> points;
};

// Loss (or what `y_label` says) over steps as PNG, drawn by gnuplot through a pipe and put in place
// when complete. Points that are not finite are left out. Returns the reason when it could not be
// drawn (gnuplot is not installed, the file cannot be written), "" on success: a plot is never
// worth a run.
std::string PlotLoss(const std::filesystem::path& png, const std::vector<Curve>& curves,
                     const std::string& y_label = "loss");

// A number that the lines of a step log may hold, as a curve; damaged lines are left out.
Curve CurveOf(const std::filesystem::path& log, const std::string& key, const std::string& title);

// The curves of a run folder: the training loss of metrics.jsonl, its running mean, the held-out
// loss of eval.jsonl.
std::vector<Curve> LossCurves(const std::filesystem::path& run_folder);

}  // namespace lwm::train
