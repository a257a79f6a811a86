#include "lwm/train/plot.h"

#include <cmath>
#include <csignal>
#include <cstdio>

#include "lwm/base/format.h"
#include "lwm/train/metrics.h"

namespace lwm::train {
namespace {

namespace fs = std::filesystem;

// In gnuplot's single quotes only the quote itself is special.
std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? "''" : std::string(1, c);
  return quoted + "'";
}

std::string Script(const fs::path& png, const std::vector<Curve>& curves,
                   const std::string& y_label) {
  std::string script = fmt::format(
      "set terminal pngcairo size 900,560 font ',11'\nset output {}\nset grid\n"
      "set xlabel 'step'\nset ylabel {}\nset key {} right\nplot ",
      Quoted(png.string()), Quoted(y_label), y_label == "loss" ? "top" : "bottom");
  for (size_t i = 0; i < curves.size(); ++i)
    script += fmt::format("{}'-' with {} title {} noenhanced", i ? ", " : "",
                          curves[i].points.size() > 30 ? "lines" : "linespoints pt 7 ps 0.6",
                          Quoted(curves[i].title));
  script += "\n";
  for (const Curve& curve : curves) {
    for (const auto& [step, loss] : curve.points)
      if (std::isfinite(loss)) script += fmt::format("{} {}\n", step, loss);
    script += "e\n";
  }
  return script;
}

// True when gnuplot took the script and ended well. A missing gnuplot must not end this process
// through SIGPIPE.
bool RunGnuplot(const std::string& script) {
  const auto previous = std::signal(SIGPIPE, SIG_IGN);
  FILE* pipe = popen("gnuplot 2>/dev/null", "w");
  const bool written =
      pipe != nullptr && std::fwrite(script.data(), 1, script.size(), pipe) == script.size();
  const bool done = pipe != nullptr && pclose(pipe) == 0 && written;
  std::signal(SIGPIPE, previous);
  return done;
}

// Exponential mean over about a fiftieth of the run.
Curve RunningMean(const Curve& curve) {
  Curve mean{"running mean", {}};
  const double keep = 1 - 1 / std::max(5.0, static_cast<double>(curve.points.size()) / 50);
  double sum = 0, weight = 0;
  for (const auto& [step, loss] : curve.points) {
    sum = keep * sum + (1 - keep) * loss;
    weight = keep * weight + (1 - keep);
    mean.points.emplace_back(step, sum / weight);
  }
  return mean;
}

}  // namespace

std::string PlotLoss(const fs::path& png, const std::vector<Curve>& curves,
                     const std::string& y_label) {
  std::vector<Curve> drawn;
  for (const Curve& curve : curves)
    if (!curve.points.empty()) drawn.push_back(curve);
  if (drawn.empty()) return "no losses to plot yet";
  const fs::path temporary = png.parent_path() / ("." + png.filename().string() + ".tmp");
  std::error_code error;
  const bool made = RunGnuplot(Script(temporary, drawn, y_label)) && fs::exists(temporary, error) &&
                    fs::file_size(temporary, error) > 0;
  if (made) fs::rename(temporary, png, error);
  if (made && !error) return "";
  fs::remove(temporary, error);
  return "cannot draw " + png.string() + ": is gnuplot installed and the folder writable?";
}

Curve CurveOf(const fs::path& log, const std::string& key, const std::string& title) {
  Curve curve{title, {}};
  for (const Json& line : ReadStepLog(log))
    if (line.contains(key) && line.at(key).is_number())
      curve.points.emplace_back(line.at("step").get<double>(), line.at(key).get<double>());
  return curve;
}

std::vector<Curve> LossCurves(const fs::path& run_folder) {
  std::vector<Curve> curves = {CurveOf(run_folder / "metrics.jsonl", "loss", "training")};
  if (curves[0].points.size() > 60) curves.push_back(RunningMean(curves[0]));
  curves.push_back(CurveOf(run_folder / "eval.jsonl", "loss", "held out"));
  return curves;
}

}  // namespace lwm::train
