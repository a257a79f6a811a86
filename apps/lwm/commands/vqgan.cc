// lwm vqgan: images and videos as codes of a VQGAN, and codes as images and videos.
#include "commands/vqgan.h"

#include <algorithm>

#include "commands.h"
#include "lwm/checkpoint/tensor_file.h"

namespace lwm::app {
void AddVqgan(CLI::App& command) {
  command.require_subcommand(1);
  AddVqganEncode(command);
  AddVqganDecode(command);
  AddVqganTrain(command);
  AddVqganMeasure(command);
}

void AddVqganRunFlags(CLI::App& command, VqganRunFlags& flags) {
  command
      .add_option("-m,--model", flags.model,
                  "VQGAN directory (config.json, diffusion_pytorch_model.safetensors), or a model "
                  "directory that holds one")
      ->required();
  command.add_option("--batch", flags.batch, "frames computed at once")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  AddRunFlags(command, flags.run);
}

void ForEachBatch(const io::TensorSource& source, const std::string& name, int64_t batch,
                  const std::function<void(const at::Tensor& rows, double share)>& use) {
  const int64_t count = source.info(name).shape[0];
  if (count == 0) use(checkpoint::ReadTensor(source, name), 1);
  for (int64_t begin = 0; begin < count; begin += batch) {
    const int64_t end = std::min(begin + batch, count);
    use(checkpoint::ReadTensorRows(source, name, begin, end - begin),
        static_cast<double>(end) / static_cast<double>(count));
  }
}

}  // namespace lwm::app
