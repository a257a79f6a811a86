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

// Steps on small pictures free and take the same few megabytes over and over; without this glibc
// gives them back to the system every time (6 ms a step). The user's environment wins.
void KeepSmallTensors();

// Flags of the subcommands that compute codes or pictures.
struct VqganRunFlags {
  RunFlags run;
  std::string model;
  int64_t batch = 4;
};
void AddVqganRunFlags(CLI::App& command, VqganRunFlags& flags);

}  // namespace lwm::app
