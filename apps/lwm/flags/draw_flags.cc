#include "flags/draw_flags.h"

#include <memory>

#include "flags/model_flags.h"
#include "flags/sampling_flags.h"
#include "lwm/base/count_of.h"
#include "lwm/base/format.h"
#include "lwm/base/process.h"
#include "lwm/data/prompt.h"
#include "progress.h"

namespace lwm::app {

void AddDrawFlags(CLI::App& command, DrawFlags& flags) {
  command.add_option("-m,--model", flags.model, "model directory")->required();
  command.add_option("--vqgan", flags.vqgan, "VQGAN directory (default: vqgan in the model's)");
  AddScaleFlag(command, flags.options.scale);
  AddSamplingFlags(command, flags.options.sampling);
  command.add_flag("--chat", flags.chat,
                   "ask as the published chat models want it: USER: Generate ... ASSISTANT:");
  AddRunFlags(command, flags.run);
}

infer::EngineOptions EngineOptionsFor(const DrawFlags& flags) {
  return {.dtype = ScalarTypeOf(flags.run), .images = true, .vqgan = flags.vqgan};
}

std::string DrawText(const DrawFlags& flags, const char* what, const std::string& prompt) {
  return flags.chat ? data::DrawingQuestion(what, prompt) : prompt;
}

infer::OnCodes ShowCodes(size_t rows) {
  const auto progress = std::make_shared<Progress>();
  return [start = MonotonicSeconds(), rows, progress](int64_t done, int64_t all) {
    if (done < all && !progress->is_due()) return;
    const double codes = static_cast<double>(done) * static_cast<double>(rows);
    const std::string line = fmt::format(
        "drew {} of {} in {}, {:.1f} codes/s", done, CountOf(all, "code"),
        CountOf(static_cast<int64_t>(rows), "row"), codes / (MonotonicSeconds() - start));
    done < all ? progress->Show(line) : progress->Finish(line);
  };
}

}  // namespace lwm::app
