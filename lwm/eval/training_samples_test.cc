#include "lwm/eval/training_samples.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/file.h"
#include "lwm/io/image_file.h"
#include "lwm/testing/llama_pieces.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_model_directory.h"
#include "lwm/testing/tiny_vqgan.h"

namespace lwm::eval {
namespace {

class TrainingSamplesTest : public testing::Test {
 protected:
  TrainingSamplesTest() {
    testing_support::WriteTinyModelDirectory(folder_ / "model", testing_support::TinyConfig(12),
                                             *testing_support::LlamaTokenizer());
    testing_support::WriteSmallestVqgan(folder_ / "model/vqgan");
    config_.train.dtype = config::Dtype::kF32;
    config_.pictures.columns = 2;
  }

  const testing_support::TemporaryFolder folder_;
  config::TrainConfig config_;
};

TEST_F(TrainingSamplesTest, TheSampleDependsOnPromptSeedAndLength) {
  config_.train.sample_prompt = "Once upon";
  config_.train.sample_tokens = 20;
  const std::string sample = SampleText(config_, folder_ / "model");
  EXPECT_FALSE(sample.empty());
  EXPECT_EQ(SampleText(config_, folder_ / "model"), sample);
  config_.train.seed += 1;
  EXPECT_NE(SampleText(config_, folder_ / "model"), sample);
}

TEST_F(TrainingSamplesTest, PromptsAreDrawnIntoOneGrid) {
  config_.pictures.prompts = {"a cat", "a dog", "a cow"};
  ImageReport report(config_);
  EXPECT_EQ(report(folder_ / "model", folder_ / "x.png", false), Json::object());
  EXPECT_EQ(io::ReadImage(folder_ / "x.png").height, 2 * 8 + 3 * 2);
}

TEST_F(TrainingSamplesTest, PairsAreMeasuredAndDrawnUnderTheirImages) {
  std::string lines;
  for (int i = 0; i < 3; ++i) {
    io::WritePng(folder_ / Cat(i, ".png"), testing_support::NoiseImage(10 + i, 8, 8));
    lines += Json{{"caption", Cat("noise ", i)}, {"image_vision", Cat(i, ".png")}}.dump() + "\n";
  }
  WriteFileAtomically(folder_ / "pairs.jsonl", lines);
  config_.pictures.pairs = (folder_ / "pairs.jsonl").string();
  config_.pictures.pairs_count = 2;
  ImageReport report(config_);
  EXPECT_EQ(report(folder_ / "model", folder_ / "x.png", false).at("pairs_described"), 2);
  const Json last = report(folder_ / "model", folder_ / "x.png", true);
  EXPECT_EQ(last.at("pairs_described"), 3);
  EXPECT_EQ(last.at("captions_drawn"), 2);
  EXPECT_GT(io::ReadImage(folder_ / "x.png").height, 2 * 8);
}

}  // namespace
}  // namespace lwm::eval
