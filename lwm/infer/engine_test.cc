#include "lwm/infer/engine.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/data/prompt.h"
#include "lwm/io/image_file.h"
#include "lwm/testing/llama_pieces.h"
#include "lwm/testing/message_of.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_model_directory.h"
#include "lwm/testing/tiny_vqgan.h"

namespace lwm::infer {
namespace {

using testing_support::MessageOf;
using testing_support::TinyConfig;

class EngineTest : public testing::Test {
 protected:
  EngineTest() {
    testing_support::WriteTinyModelDirectory(folder_ / "model", TinyConfig(12), *tokenizer_);
    testing_support::WriteTinyModelDirectory(folder_ / "text", TinyConfig(), *tokenizer_);
    testing_support::WriteSmallestVqgan(folder_ / "model/vqgan");
    io::WritePng(folder_ / "noise.png", testing_support::NoiseImage(4, 10, 8));
  }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  const std::shared_ptr<const data::Tokenizer> tokenizer_ = testing_support::LlamaTokenizer();
  const testing_support::TemporaryFolder folder_;
};

TEST_F(EngineTest, ADirectoryGivesTextAndImages) {
  const Engine engine(Path("model"), {.dtype = at::kFloat, .images = true});
  EXPECT_EQ(engine.layout().tokens_per_frame, 16);
  const at::Tensor codes = engine.Draw({"a cat", "a dog"}, {}, {.frames = 2, .scale = 3});
  EXPECT_EQ(codes.sizes(), at::IntArrayRef({2, 2, 16}));
  // The same from the prompts themselves.
  const auto prompt = [&](const char* text) {
    return data::FramePrompt(engine.tokenizer(), engine.layout(), text);
  };
  EXPECT_TRUE(at::equal(
      codes, GenerateFrames(engine.decoder(), engine.layout(), {prompt("a cat"), prompt("a dog")},
                            {prompt(""), prompt("")}, {.frames = 2, .scale = 3})));
  const std::vector<io::RgbImage> images = engine.FramesOf(codes[0]);
  ASSERT_EQ(images.size(), 2u);
  EXPECT_EQ(images[0].width, 8);

  GenerateRequest request = TextRequest(data::EncodePrompt(engine.tokenizer(), "Once"));
  request.max_new_tokens = 5;
  request.ignore_eos = true;
  EXPECT_EQ(engine.Generate({request})[0].added.size(), 5);
}

TEST_F(EngineTest, CodesOfAFileAreThoseOfItsFrames) {
  const Engine engine(Path("model"), {.dtype = at::kFloat, .images = true});
  testing_support::WriteGreyVideo(folder_ / "a.mp4", 20);
  const at::Tensor all = engine.CodesOf(Path("a.mp4"));
  EXPECT_EQ(all.sizes(), at::IntArrayRef({20, 16}));  // more than one batch
  EXPECT_TRUE(at::equal(engine.CodesOf(Path("a.mp4"), {}, 3), all.slice(0, 0, 3)));
  EXPECT_EQ(engine.CodesOf(Path("noise.png")).size(0), 1);
}

TEST_F(EngineTest, FramesGoOnFromThoseGiven) {
  const Engine engine(Path("model"), {.dtype = at::kFloat, .images = true});
  const FrameOptions greedy{.frames = 2, .sampling = {.temperature = 0}};
  const at::Tensor both = engine.Draw({"a cat"}, {}, greedy)[0];
  const at::Tensor second =
      engine.Draw({"a cat"}, both.slice(0, 0, 1), {.frames = 1, .sampling = greedy.sampling})[0];
  EXPECT_TRUE(at::equal(second[0], both[1]));
}

TEST_F(EngineTest, PartsThatDoNotBelongTogetherAreRefused) {
  EXPECT_NE(MessageOf([&] { Engine(Path("text"), {.images = true}); }, ErrorCode::kInvalidArgument)
                .find("a text-only model"),
            std::string::npos);
  config::ModelConfig config = TinyConfig();
  config.vocab_size = tokenizer_->vocab_size() - 1;
  EXPECT_NE(MessageOf([&] { OpenTokenizerFor(config, Path("text")); }, ErrorCode::kInvalidArgument)
                .find("do not belong together"),
            std::string::npos);
}

}  // namespace
}  // namespace lwm::infer
