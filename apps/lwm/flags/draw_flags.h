#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "command.h"
#include "lwm/infer/engine.h"

namespace lwm::app {

// Flags of commands that draw frames.
struct DrawFlags {
  RunFlags run;
  std::string model, vqgan, output;
  bool chat = false;
  infer::FrameOptions options;
};
void AddDrawFlags(CLI::App& command, DrawFlags& flags);

// To open their model with its VQGAN.
infer::EngineOptions EngineOptionsFor(const DrawFlags& flags);

// The text before <vision>: the prompt, or with --chat data::DrawingQuestion.
std::string DrawText(const DrawFlags& flags, const char* what, const std::string& prompt);

// Progress of drawing so many rows, on stderr.
infer::OnCodes ShowCodes(size_t rows);

}  // namespace lwm::app
