#include "lwm/run/plot.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <iterator>
#include <utility>

#include "lwm/base/format.h"
#include "lwm/run/metrics.h"

namespace lwm::run {
namespace {

namespace fs = std::filesystem;

// In gnuplot's single quotes only the quote itself is special.
std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? "''" : std::string(1, c);
  return quoted + "'";
}

constexpr char kFaintColor[] = "#b8c4d0";
constexpr const char* kColors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7"};

// "held out 3.95": with the last value; of a faint curve, which is noise, without.
std::string KeyOf(const Curve& curve) {
  return curve.faint ? curve.title
                     : fmt::format("{} {:.3g}", curve.title, curve.points.back().second);
}

// Few points are marked, many are a line.
std::string StyleOf(const Curve& curve, size_t color) {
  if (curve.faint) return fmt::format("lines lc rgb '{}' lw 1", kFaintColor);
  const char* rgb = kColors[color % std::size(kColors)];
  return curve.points.size() > 30 ? fmt::format("lines lc rgb '{}' lw 2.5", rgb)
                                  : fmt::format("linespoints lc rgb '{}' lw 2 pt 7 ps 1.1", rgb);
}

std::string Script(const fs::path& png, const std::vector<Curve>& curves,
                   const PlotLabels& labels) {
  std::string script = fmt::format(
      "set terminal pngcairo size 900,560 font ',12'\nset output {}\nset border 3\n"
      "set tics nomirror\nset grid lc rgb '#dddddd' lt 1\nset title {} noenhanced\n"
      "set xlabel 'step'\nset ylabel {} noenhanced\nset key {} right noenhanced\nplot ",
      Quoted(png.string()), Quoted(labels.title), Quoted(labels.y),
      labels.falls ? "top" : "bottom");
  size_t color = 0;
  for (size_t i = 0; i < curves.size(); ++i) {
    const std::string style = StyleOf(curves[i], color);
    if (!curves[i].faint) ++color;
    script += fmt::format("{}'-' with {} title {}", i ? ", " : "", style, Quoted(KeyOf(curves[i])));
  }
  script += "\n";
  for (const Curve& curve : curves) {
    for (const auto& [step, value] : curve.points) script += fmt::format("{} {}\n", step, value);
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

// Exponential mean over about a fiftieth of the run; over fewer steps at its beginning, where the
// loss falls fast and a long mean would lie above it.
Curve RunningMean(const Curve& curve) {
  Curve mean{"training, running mean", {}};
  const double longest = std::max(5.0, static_cast<double>(curve.points.size()) / 50);
  double value = 0;
  for (const auto& [step, loss] : curve.points) {
    const double seen = static_cast<double>(mean.points.size());
    const double window = std::clamp(seen / 3 + 1, 1.0, longest);
    value += (loss - value) / window;
    mean.points.emplace_back(step, value);
  }
  return mean;
}

}  // namespace

std::string PlotCurves(const fs::path& png, const std::vector<Curve>& curves,
                       const PlotLabels& labels) {
  std::vector<Curve> drawn;
  for (Curve curve : curves) {
    std::erase_if(curve.points, [](const auto& point) { return !std::isfinite(point.second); });
    if (!curve.points.empty()) drawn.push_back(std::move(curve));
  }
  if (drawn.empty()) return "nothing to plot yet";
  const fs::path temporary = png.parent_path() / ("." + png.filename().string() + ".tmp");
  std::error_code error;
  const bool made = RunGnuplot(Script(temporary, drawn, labels)) && fs::exists(temporary, error) &&
                    fs::file_size(temporary, error) > 0;
  // Readers, a browser that reloads the image, never see a half-drawn one.
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
  if (curves[0].points.size() > 60) {
    curves[0].faint = true;
    curves.push_back(RunningMean(curves[0]));
  }
  curves.push_back(CurveOf(run_folder / "eval.jsonl", "loss", "held out"));
  return curves;
}

}  // namespace lwm::run
