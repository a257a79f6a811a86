#pragma once

#include <ATen/core/Tensor.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>

#include "command.h"
#include "lwm/io/tensor_source.h"

namespace lwm::app {

// Subcommands of `lwm vqgan`, each defined in the file of its name, as in commands/vqgan_encode.cc.
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

// use(rows of one batch, share of all rows that are done then) over all rows of a tensor in a file,
// read as they are needed. A tensor without rows is one empty batch.
void ForEachBatch(const io::TensorSource& source, const std::string& name, int64_t batch,
                  const std::function<void(const at::Tensor& rows, double share)>& use);

}  // namespace lwm::app
