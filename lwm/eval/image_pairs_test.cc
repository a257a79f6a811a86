#include "lwm/eval/image_pairs.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/data/prompt.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/io/image_file.h"
#include "lwm/testing/byte_pieces.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_model.h"
#include "lwm/testing/tiny_vqgan.h"
#include "lwm/vision/frame_batches.h"
#include "lwm/vision/frames.h"

namespace lwm::eval {
namespace {

using testing_support::TemporaryFolder;
using testing_support::TinyConfig;
using testing_support::TinyWeights;

// Bytes and the pieces that <vision> is made of.
std::unique_ptr<data::Tokenizer> TinyTokenizer() {
  std::vector<std::string> pieces;
  for (const char c : std::string("abcdefghijklmnopqrstuvwxyz<>/")) pieces.emplace_back(1, c);
  pieces.emplace_back("\u2581");
  return data::MakePieceTokenizer(testing_support::ByteAndOtherPieces(pieces), "test");
}

io::RgbImage Plain(uint8_t red, uint8_t green, uint8_t blue, int64_t side = 8) {
  io::RgbImage image{side, side, {}};
  for (int64_t i = 0; i < side * side; ++i)
    for (const uint8_t value : {red, green, blue}) image.rgb_HWC.push_back(value);
  return image;
}

class ImagePairsTest : public testing::Test {
 protected:
  ImagePairsTest() {
    const std::vector<std::string> captions = {"red", "green", "dark blue", "red", "white"};
    const std::vector<io::RgbImage> images = {Plain(255, 0, 0), Plain(0, 255, 0), Plain(0, 0, 90),
                                              Plain(250, 5, 0, 16), Plain(255, 255, 255)};
    std::string lines = "\n";
    for (size_t i = 0; i < captions.size(); ++i) {
      io::WritePng(folder_ / Cat(i, ".png"), images[i]);
      lines += Json{{"image_vision", Cat(i, ".png")}, {"caption", captions[i]}}.dump() + "\n";
    }
    WriteFileAtomically(folder_ / "pairs.jsonl", lines);
    pairs_ = ReadImagePairs(folder_ / "pairs.jsonl", "caption", "image_vision", vqgan_, 8);
    config_.vocab_size = tokenizer_->vocab_size();
  }

  infer::Engine Model() const { return {TinyWeights(config_), tokenizer_, vqgan_}; }

  const TemporaryFolder folder_;
  const vision::Vqgan vqgan_{testing_support::SmallestVqganConfig(),
                             vision::RandomVqganWeights(testing_support::SmallestVqganConfig(), 9),
                             at::kFloat};
  const std::shared_ptr<const data::Tokenizer> tokenizer_ = TinyTokenizer();
  config::ModelConfig config_ = TinyConfig(/*vision_vocab_size=*/12);
  ImagePairs pairs_;
};

TEST_F(ImagePairsTest, LinesBecomeImagesAndTheirCodes) {
  ASSERT_EQ(pairs_.size(), 5);
  EXPECT_EQ(pairs_.caption_P[2], "dark blue");
  EXPECT_EQ(pairs_.images_PHWC.sizes(), at::IntArrayRef({5, 8, 8, 3}));
  EXPECT_EQ(pairs_.images_PHWC[0][3][3][0].item<float>(), 1);
  EXPECT_TRUE(at::equal(pairs_.codes_Pn, vqgan_.Encode(pairs_.images_PHWC).flatten(1)));
  EXPECT_EQ(SomePairs(pairs_, 2).caption_P, (std::vector<std::string>{"red", "dark blue"}));
  EXPECT_EQ(SomePairs(pairs_, 0).size(), 5);
}

TEST_F(ImagePairsTest, PromptsBeginWithBosWhereTheTokenizersTextsDo) {
  const TemporaryFolder folder;
  WriteFileAtomically(folder / tokenizer_->file_name(), tokenizer_->file_content());
  WriteFileAtomically(folder / "tokenizer_config.json", R"({"add_bos_token": false})");
  const auto without = data::OpenTokenizer(folder.path());
  ASSERT_EQ(without->bos_id(), tokenizer_->bos_id());  // it has one, and does not use it
  const infer::Engine model = Model();
  const std::span<const int32_t> codes(pairs_.codes_Pn.const_data_ptr<int32_t>(),
                                       static_cast<size_t>(pairs_.codes_Pn.size(1)));
  for (const auto& [with_bos, without_bos] :
       {std::pair{data::FramePrompt(*tokenizer_, model.layout(), "red"),
                  data::FramePrompt(*without, model.layout(), "red")},
        std::pair{data::CaptionPrompt(*tokenizer_, model.layout(), codes),
                  data::CaptionPrompt(*without, model.layout(), codes)}}) {
    EXPECT_EQ(with_bos.id_n.front(), tokenizer_->bos_id());
    EXPECT_TRUE(std::equal(with_bos.id_n.begin() + 1, with_bos.id_n.end(), without_bos.id_n.begin(),
                           without_bos.id_n.end()));
  }
}

TEST_F(ImagePairsTest, TheCodeLossIsThatOfReadingTokenByToken) {
  const infer::Engine model = Model();
  const std::vector<size_t> other = {1, 2, 3, 4, 0};
  CodeLoss want;
  for (size_t p = 0; p < 5; ++p)
    for (const bool right : {true, false}) {
      data::MultimodalSequence read =
          data::FramePrompt(*tokenizer_, model.layout(), pairs_.caption_P[right ? p : other[p]]);
      infer::KvCache cache(config_, 1, 64, at::kFloat);
      for (int64_t i = 0; i < 16; ++i) {
        const at::Tensor logits =
            model.decoder().Read({at::tensor(read.id_n, at::kLong).unsqueeze(0),
                                  at::tensor(read.vision_n, at::kByte).to(at::kBool).unsqueeze(0)},
                                 infer::Head::kVision, cache);
        const auto code = pairs_.codes_Pn[static_cast<int64_t>(p)][i].item<int64_t>();
        (right ? want.right : want.wrong) -=
            at::log_softmax(logits, 1)[0][code].item<double>() / 80;
        read = {};
        read.Add(code, true);
      }
    }
  const CodeLoss got = MeasureCodeLoss(model, pairs_);
  EXPECT_NEAR(got.right, want.right, 1e-5);
  EXPECT_NEAR(got.wrong, want.wrong, 1e-5);
  EXPECT_GT(std::abs(got.right - got.wrong), 1e-4);
}

TEST_F(ImagePairsTest, TheNearestImageIsByPixelsAsShown) {
  const at::Tensor asked = vision::TensorOfFrames({Plain(200, 60, 60), Plain(0, 0, 0)});
  EXPECT_TRUE(
      at::equal(NearestImages(asked * 1.0f, pairs_.images_PHWC), at::tensor({3, 2}, at::kLong)));
  // Beyond what a PNG can show, distances do not grow.
  EXPECT_EQ(NearestImages(at::full({1, 8, 8, 3}, 50.0), pairs_.images_PHWC).item<int64_t>(), 4);
}

TEST_F(ImagePairsTest, CaptionsOfABatchAreThoseOfEachAlone) {
  const infer::Engine model = Model();
  const auto together = CaptionsOf(model, pairs_.codes_Pn, 6);
  for (int64_t p = 0; p < 5; ++p)
    EXPECT_EQ(CaptionsOf(model, pairs_.codes_Pn.slice(0, p, p + 1), 6)[0],
              together[static_cast<size_t>(p)]);
}

// A model whose vision head says nothing but one code and whose text head nothing but the end.
TEST_F(ImagePairsTest, ScoresCountWhatIsRight) {
  model::ResidentWeights weights = TinyWeights(config_);
  weights.Visit([](const model::TensorSpec& spec, at::Tensor& weight, at::Tensor&) {
    if (spec.name == "model.norm.weight") weight.fill_(0);
  });
  const infer::Engine engine(std::move(weights), tokenizer_, vqgan_);
  pairs_.codes_Pn.fill_(0);
  pairs_.codes_Pn[1].slice(0, 0, 4).fill_(3);
  pairs_.caption_P[4] = "";
  PairOptions options;
  options.images = 0;
  options.drawing.sampling.temperature = 0;
  std::vector<std::string> said;
  const PairScores scores = MeasurePairs(
      engine, pairs_, options, [&](const std::string& what, int64_t) { said.push_back(what); });
  EXPECT_EQ(scores.images, 5);
  EXPECT_EQ(scores.captions, 5);
  EXPECT_NEAR(scores.code_loss.right, std::log(12.0), 1e-5);
  EXPECT_NEAR(scores.code_loss.wrong, std::log(12.0), 1e-5);
  EXPECT_DOUBLE_EQ(scores.codes_equal, 76.0 / 80);  // code 0 is the likeliest of equal ones
  // All drawn images are the same: nearest to one of the five, or to both red ones.
  EXPECT_TRUE(std::abs(scores.nearest - 0.2) < 1e-9 || std::abs(scores.nearest - 0.4) < 1e-9);
  EXPECT_EQ(scores.nearest, scores.nearest_of_drawn);
  EXPECT_EQ(said.size(), 4u);
  EXPECT_EQ(ToJson(scores).at("captions_drawn"), 5);
}

TEST_F(ImagePairsTest, FramesAreOfTheSizeThatTheModelWasTrainedOn) {
  EXPECT_EQ(Model().layout().tokens_per_frame, 16);
  EXPECT_EQ(Model().layout().frame_size, 8);
  config_.codes_per_frame = 36;
  const infer::Engine model = Model();
  EXPECT_EQ(model.layout().tokens_per_frame, 36);
  EXPECT_EQ(model.layout().frame_size, 12);
  const ImagePairs pairs =
      ReadImagePairs(folder_ / "pairs.jsonl", "caption", "image_vision", vqgan_, 12);
  EXPECT_EQ(pairs.codes_Pn.sizes(), at::IntArrayRef({5, 36}));
  EXPECT_EQ(vision::DecodeFrames(vqgan_, pairs.codes_Pn).sizes(), at::IntArrayRef({5, 12, 12, 3}));
  EXPECT_EQ(ImagesOf(model, {"red"}, {}).sizes(), at::IntArrayRef({1, 36}));
  config_.codes_per_frame = 35;
  EXPECT_ERROR(Model(), kInvalidArgument);
}

TEST_F(ImagePairsTest, BadFilesAreRefused) {
  const auto message = [&](const std::string& content) -> std::string {
    WriteFileAtomically(folder_ / "bad.jsonl", content);
    try {
      ReadImagePairs(folder_ / "bad.jsonl", "caption", "image_vision", vqgan_, 8);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_NE(message("{\"caption\": \"x\"}\n").find("bad.jsonl:1"), std::string::npos);
  EXPECT_NE(message("{\"caption\": \"x\", \"image_vision\": \"none.png\"}\n").find("none.png"),
            std::string::npos);
  EXPECT_NE(message("{\"caption\": \"x\", \"image_vision\": \"0.png\"}\n").find("at least 2"),
            std::string::npos);
  config_.vision_vocab_size = 11;
  EXPECT_ERROR(data::MakeFrameLayout(vqgan_.config(), config_, *tokenizer_), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::eval
