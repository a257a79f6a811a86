// Text and frames that the published LWM code generates (vision_ckpt): left-padded prompts, greedy,
// frames with guidance.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "lwm/checkpoint/model_directory.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/infer/frames.h"
#include "lwm/testing/golden_folder.h"

namespace lwm::infer {
namespace {

class FramesGoldenTest : public testing::Test {
 protected:
  // Row `row` of a file's prompts, without its padding.
  static data::MultimodalSequence PromptOf(const std::map<std::string, at::Tensor>& golden,
                                           int64_t row) {
    const auto mask_T = golden.at("attention_mask")[row];
    data::MultimodalSequence prompt;
    for (int64_t t = 0; t < mask_T.numel(); ++t)
      if (mask_T[t].item<int64_t>() != 0)
        prompt.Add(golden.at("prompt_ids")[row][t].item<int64_t>(),
                   golden.contains("vision_mask") &&
                       golden.at("vision_mask")[row][t].item<int64_t>() != 0);
    return prompt;
  }

  // Rows 0 and 1 are the prompts, 2 and 3 the same without their text.
  void ExpectFrames(const std::string& file, const std::vector<double>& scales) const {
    const auto golden = checkpoint::LoadTensors(folder_ / file);
    for (int64_t row = 0; row < 2; ++row) {
      FrameOptions options;
      options.sampling.temperature = 0;
      options.scale = scales[static_cast<size_t>(row)];
      const at::Tensor codes = GenerateFrames(model_, layout_, {PromptOf(golden, row)},
                                              {PromptOf(golden, row + 2)}, options);
      EXPECT_TRUE(at::equal(codes.reshape({-1}).to(at::kLong),
                            golden.at("new_ids")[row].slice(0, 0, 256).to(at::kLong)))
          << file << " row " << row;
      EXPECT_EQ(golden.at("new_ids")[row][256].item<int64_t>(), layout_.eof());
    }
  }

  const std::filesystem::path folder_ = testing_support::GoldenFolder("vision_ckpt");
  model::ResidentWeights weights_ = checkpoint::LoadModel(folder_ / "streaming_params", at::kFloat);
  DecodeModel model_{weights_.config(), weights_};
  data::FrameLayout layout_{.begin_ids = {5, 6, 7}, .end_ids = {5, 6, 8}};
};

TEST_F(FramesGoldenTest, GuidedGreedyImagesHaveThePublishedCodes) {
  ExpectFrames("greedy_image.safetensors", {5, 3});
}

TEST_F(FramesGoldenTest, TheNextFrameOfAVideoHasThePublishedCodes) {
  ExpectFrames("greedy_video.safetensors", {1, 2});
}

TEST_F(FramesGoldenTest, TextAfterVisionCodesIsThePublishedOne) {
  const auto golden = checkpoint::LoadTensors(folder_ / "greedy_text.safetensors");
  std::vector<GenerateRequest> requests(2);
  for (int64_t row = 0; row < 2; ++row) {
    GenerateRequest& request = requests[static_cast<size_t>(row)];
    request.prompt = PromptOf(golden, row);
    request.max_new_tokens = 24;
    request.text.temperature = 0;
    request.ignore_eos = true;
  }
  const auto generated = Generate(model_, requests, {.layout = &layout_});
  for (int64_t row = 0; row < 2; ++row)
    EXPECT_EQ(at::tensor(generated[static_cast<size_t>(row)].added.id_n, at::kLong)
                  .sub(golden.at("new_ids")[row])
                  .abs()
                  .max()
                  .item<int64_t>(),
              0);
}

}  // namespace
}  // namespace lwm::infer
