// Damaged variants of a diffusers directory: refused in one line, or read.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/testing/damage.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_vqgan.h"

namespace lwm::checkpoint {
namespace {
namespace fs = std::filesystem;

using testing_support::DamagedVariants;

class VqganDamageTest : public testing::Test {
 protected:
  VqganDamageTest() { testing_support::WriteSmallestVqgan(folder_.path()); }

  // Reads every weight of the directory with the bytes as this file of it.
  testing_support::ParseBytes As(const std::string& name) const {
    return testing_support::AsFile(folder_ / name, [this] {
      const auto source = OpenVqgan(folder_.path());
      for (const vision::VqganSpec& spec : vision::VqganSpecs(source->config())) source->Read(spec);
    });
  }

  static constexpr const char* kWeights = "diffusion_pytorch_model.safetensors";
  testing_support::TemporaryFolder folder_;
};

TEST_F(VqganDamageTest, Config) {
  DamagedVariants variants(ReadFile(folder_ / "config.json"), As("config.json"));
  variants.ExpectCutsRefused(variants.whole().size() - 1, 3);  // the last byte ends the line
  variants.ChangeEveryByte(9);
  const Json truth = Json::parse(variants.whole());
  for (const auto& [key, value] : truth.items()) {
    for (const Json& lie :
         {Json(0), Json(-1), Json(int64_t{1} << 40), Json(~uint64_t{0}), Json(0.5), Json("x"),
          Json(Json::array()), Json(Json::array({0})), Json(1e300)}) {
      Json lying = truth;
      lying[key] = lie;
      variants.Try(lying.dump());
    }
  }
  for (const char* key : {"block_out_channels", "latent_channels", "layers_per_block",
                          "num_vq_embeddings", "norm_num_groups"}) {
    Json lying = truth;
    lying[key] = -3;
    variants.ExpectRefused(lying.dump(), key);
  }
  variants.ExpectEnoughAndLittleMemory();
}

TEST_F(VqganDamageTest, Weights) {
  DamagedVariants variants(ReadFile(folder_ / kWeights), As(kWeights));
  uint64_t length = 0;
  std::memcpy(&length, variants.whole().data(), sizeof(length));
  const std::string data = variants.whole().substr(8 + length);
  const Json header = Json::parse(variants.whole().substr(8, length));
  const auto refuse = [&](const Json& lying, const std::string& name) {
    const std::string text = lying.dump();
    variants.ExpectRefused(testing_support::Bytes(static_cast<uint64_t>(text.size())) + text + data,
                           name);
  };
  int count = 0;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__" || ++count % 2) continue;
    // Cut where the tensor begins and ends.
    for (const Json& offset : entry.at("data_offsets"))
      if (const auto cut = offset.get<size_t>(); cut < data.size())
        variants.ExpectRefused(variants.whole().substr(0, 8 + length + cut));
    Json lying = header;
    lying[name]["dtype"] = "F64";
    refuse(lying, name);
    lying[name]["dtype"] = "I32";  // as wide, and no float
    refuse(lying, name);
    lying = header;
    lying[name]["shape"].push_back(2);
    refuse(lying, name);
    lying[name]["shape"] = entry.at("shape");
    lying[name]["shape"].push_back(1);  // as many numbers, another shape
    refuse(lying, name);
    lying = header;
    lying[name + "x"] = lying[name];
    lying.erase(name);
    refuse(lying, name);
  }
  variants.ExpectEnoughAndLittleMemory();
}

}  // namespace
}  // namespace lwm::checkpoint
