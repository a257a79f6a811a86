#include "flags/dtype_flag.h"

namespace lwm::app {
namespace {

template <class Target>
CLI::Option* Add(CLI::App& command, const std::string& name, Target& dtype,
                 const std::vector<std::string>& choices, const std::string& help) {
  // Named here and not by CLI11, which would show the flag as a number.
  return command
      .add_option_function<std::string>(
          name, [&dtype](const std::string& text) { dtype = config::ParseDtype(text); }, help)
      ->check(CLI::IsMember(choices));
}

}  // namespace

void AddDtypeFlag(CLI::App& command, const std::string& name, config::Dtype& dtype,
                  const std::vector<std::string>& choices, const std::string& help) {
  Add(command, name, dtype, choices, help)->default_str(config::NameOf(dtype));
}

void AddDtypeFlag(CLI::App& command, const std::string& name, std::optional<config::Dtype>& dtype,
                  const std::vector<std::string>& choices, const std::string& help) {
  Add(command, name, dtype, choices, help);
}

}  // namespace lwm::app
