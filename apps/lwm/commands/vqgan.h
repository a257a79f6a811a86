#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "command.h"

namespace lwm::app {

// Subcommands of `lwm vqgan`.
void AddVqganEncode(CLI::App& vqgan);
void AddVqganDecode(CLI::App& vqgan);
void AddVqganMeasure(CLI::App& vqgan);
void AddVqganTrain(CLI::App& vqgan);

// Flags of the subcommands that compute codes or images.
struct VqganRunFlags {
  RunFlags run;
  std::string model;
  int64_t batch = 4;
};
void AddVqganRunFlags(CLI::App& command, VqganRunFlags& flags);

}  // namespace lwm::app
