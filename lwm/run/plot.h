#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace lwm::run {

// One line of a plot: (step, value) points.
struct Curve {
  std::string title;
  std::vector<std::pair<double, double>> points;
  bool faint = false;  // drawn pale and thin, behind the others
};

struct PlotLabels {
  std::string title;  // above the plot; "" = none
  std::string y = "loss, nats per token";
  bool falls = true;  // the key stands where falling curves leave room: top right
};

// Curves over steps as PNG, drawn by gnuplot through a pipe and put in place when complete. The key
// names each curve with its last value; colours can be told apart by colour-blind readers (Okabe
// and Ito). Points that are not finite are left out. Returns the reason when it could not be drawn
// (gnuplot is not installed, the file cannot be written), "" on success: its failure must not end
// the run.
std::string PlotCurves(const std::filesystem::path& png, const std::vector<Curve>& curves,
                       const PlotLabels& labels = {});

// A number that the lines of a step log may hold, as a curve; damaged lines are left out.
Curve CurveOf(const std::filesystem::path& log, const std::string& key, const std::string& title);

// The curves of a run folder: the training loss of metrics.jsonl, its running mean, the held-out
// loss of eval.jsonl.
std::vector<Curve> LossCurves(const std::filesystem::path& run_folder);

}  // namespace lwm::run
