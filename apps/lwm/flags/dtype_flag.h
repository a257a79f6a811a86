#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "lwm/config/dtype.h"

namespace lwm::app {

// A flag that takes one of these dtypes; help shows the value that `dtype` has now as the default.
void AddDtypeFlag(CLI::App& command, const std::string& name, config::Dtype& dtype,
                  const std::vector<std::string>& choices, const std::string& help);
// As above, without a default.
void AddDtypeFlag(CLI::App& command, const std::string& name, std::optional<config::Dtype>& dtype,
                  const std::vector<std::string>& choices, const std::string& help);

}  // namespace lwm::app
