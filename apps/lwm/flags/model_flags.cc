#include "flags/model_flags.h"

#include <cstdio>
#include <filesystem>

#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/config/generation_config.h"

namespace lwm::app {

at::ScalarType ScalarTypeOf(const RunFlags& flags) { return checkpoint::ToScalarType(flags.dtype); }

model::ResidentWeights LoadModelFor(const RunFlags& flags, const std::string& path) {
  return checkpoint::LoadModel(path, ScalarTypeOf(flags));
}

void WarnOfSettingsNotFollowed(const std::string& model) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::is_directory(model) ? fs::path(model) : fs::path(model).parent_path();
  const fs::path file = folder / "generation_config.json";
  if (!fs::exists(file)) return;
  for (const std::string& setting : config::SettingsNotFollowed(ReadJsonFile(file)))
    std::fprintf(stderr,
                 "warning: %s: %s is not followed; programs that follow it give another text\n",
                 file.c_str(), setting.c_str());
}

void RequireOneRank(RunContext& context, const char* command) {
  LWM_REQUIRE(context.world().size() == 1, "lwm ", command, " runs on one rank, not on ",
              context.world().size(), "; start it without mpirun, --threads sets its threads");
}

}  // namespace lwm::app
