// generation.h and frames.h for sequences of text and vision.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/infer/frames.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/tiny_model.h"

namespace lwm::infer {
namespace {

using testing_support::TinyConfig;
using testing_support::TinyWeights;

constexpr int64_t kVisionVocab = 90;  // 80 codes, two delimiters, padding

data::FrameLayout TinyLayout() {
  return {.tokens_per_frame = 6, .codes = 80, .begin_ids = {7, 8}, .end_ids = {9, 8}};
}

data::MultimodalSequence Text(const std::vector<int32_t>& ids) {
  data::MultimodalSequence sequence;
  sequence.AddText(ids);
  return sequence;
}

// A prompt of `ids` that ends with <vision>.
data::MultimodalSequence Prompt(std::vector<int32_t> ids) {
  data::MultimodalSequence sequence = Text(ids);
  data::AddOpenVideo(TinyLayout(), {}, sequence);
  return sequence;
}

FrameOptions Greedy(int64_t frames) {
  FrameOptions options;
  options.frames = frames;
  options.sampling.temperature = 0;
  return options;
}

// A request for text and video, of the same sampling for both.
GenerateRequest Mixed(data::MultimodalSequence prompt, int64_t max_new_tokens, double temperature) {
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = max_new_tokens;
  request.text.temperature = request.vision.temperature = temperature;
  request.ignore_eos = true;
  return request;
}

std::string MessageOf(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

class GenerationTest : public testing::Test {
 protected:
  at::Tensor Frames(const std::vector<data::MultimodalSequence>& prompts,
                    const FrameOptions& options,
                    const std::vector<data::MultimodalSequence>& unconditional = {}) const {
    return GenerateFrames(model_, layout_, prompts, unconditional, options);
  }

  // Greedy codes of the rows that a plain loop over Read gives, with guidance.
  std::vector<int64_t> ByHand(const data::MultimodalSequence& prompt,
                              const data::MultimodalSequence& unconditional, double scale,
                              int64_t frames) const {
    std::vector<KvCache> caches;
    std::vector<at::Tensor> logits;
    for (const data::MultimodalSequence* sequence : {&prompt, &unconditional}) {
      caches.emplace_back(config_, 1, 64, at::kFloat);
      logits.push_back(Read(*sequence, caches.back()));
    }
    std::vector<int64_t> codes;
    for (int64_t i = 0; i < frames * 7; ++i) {
      int64_t id = layout_.eof();
      if (i % 7 < 6) {
        const at::Tensor guided = logits[1] + scale * (logits[0] - logits[1]);
        id = guided.slice(1, 0, 80).argmax().item<int64_t>();
        codes.push_back(id);
      }
      data::MultimodalSequence next;
      next.Add(id, true);
      for (size_t k = 0; k < 2; ++k) logits[k] = Read(next, caches[k]);
    }
    return codes;
  }

  at::Tensor Read(const data::MultimodalSequence& sequence, KvCache& cache) const {
    return model_.Read({at::tensor(sequence.id_n, at::kLong).unsqueeze(0),
                        at::tensor(sequence.vision_n, at::kByte).to(at::kBool).unsqueeze(0)},
                       Head::kVision, cache);
  }

  config::ModelConfig config_ = TinyConfig(kVisionVocab);
  model::ResidentWeights weights_ = TinyWeights(config_);
  DecodeModel model_{config_, weights_};
  data::FrameLayout layout_ = TinyLayout();
  const std::vector<data::MultimodalSequence> prompts_ = {Prompt({1, 20, 30, 40}), Prompt({1}),
                                                          Prompt({1, 50, 51, 52, 53, 54, 55})};
  const std::vector<data::MultimodalSequence> unconditional_ =
      std::vector<data::MultimodalSequence>(3, Prompt({1}));
};

std::vector<int64_t> Row(const at::Tensor& codes_BFn, int64_t row) {
  const at::Tensor flat = codes_BFn.select(0, row).reshape({-1}).to(at::kLong);
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

TEST_F(GenerationTest, GuidedFramesAreThoseOfAPlainLoopOverBothBranches) {
  for (const double scale : {1.0, 3.0}) {
    FrameOptions options = Greedy(2);
    options.scale = scale;
    const at::Tensor codes = Frames(prompts_, options, unconditional_);
    ASSERT_EQ(codes.sizes(), at::IntArrayRef({3, 2, 6}));
    for (int64_t b = 0; b < 3; ++b)
      EXPECT_EQ(Row(codes, b), ByHand(prompts_[static_cast<size_t>(b)], Prompt({1}), scale, 2))
          << "row " << b << " scale " << scale;
  }
}

TEST_F(GenerationTest, ABatchDrawsWhatEachRowDrawsAlone) {
  FrameOptions options;
  options.frames = 2;
  options.scale = 2;
  options.sampling = {.temperature = 1, .top_k = 30, .top_p = 0.95};
  options.seeds = {5, 6, 7};
  const at::Tensor together = Frames(prompts_, options, unconditional_);
  for (size_t b = 0; b < 3; ++b) {
    FrameOptions alone = options;
    alone.seeds = {options.seeds[b]};
    EXPECT_EQ(Row(Frames({prompts_[b]}, alone, {Prompt({1})}), 0),
              Row(together, static_cast<int64_t>(b)));
  }
}

TEST_F(GenerationTest, AScaleOfOneIsNoGuidance) {
  const at::Tensor without = Frames(prompts_, Greedy(1));
  EXPECT_TRUE(at::equal(Frames(prompts_, Greedy(1), unconditional_), without));
  FrameOptions guided = Greedy(1);
  guided.scale = 1 + 1e-9;  // both branches run
  EXPECT_TRUE(at::equal(Frames(prompts_, guided, unconditional_), without));
  guided.scale = 4;
  EXPECT_FALSE(at::equal(Frames(prompts_, guided, unconditional_), without));
}

TEST_F(GenerationTest, OnlyCodesAreDrawnInsideAFrame) {
  FrameOptions options;
  options.frames = 40;
  options.sampling.temperature = 100;  // nearly uniform
  const at::Tensor codes = Frames(prompts_, options);
  EXPECT_GE(codes.min().item<int32_t>(), 0);
  EXPECT_LT(codes.max().item<int32_t>(), 80);
  EXPECT_GT(std::get<0>(at::_unique(codes)).numel(), 70);
}

TEST_F(GenerationTest, OneSeedGivesEveryRowItsOwnStream) {
  FrameOptions options;
  options.seeds = {9};
  const std::vector<data::MultimodalSequence> same(4, prompts_[0]);
  const at::Tensor codes = Frames(same, options);
  EXPECT_TRUE(at::equal(Frames(same, options), codes));
  for (int64_t b = 1; b < 4; ++b) EXPECT_NE(Row(codes, b), Row(codes, 0));
  EXPECT_EQ(Row(Frames({prompts_[0]}, options), 0), Row(codes, 0));
}

TEST_F(GenerationTest, AClipGoesOnFromItsFrames) {
  data::MultimodalSequence prompt = Text({1, 20, 30, 40});
  const at::Tensor codes = Frames({prompts_[0]}, Greedy(2));
  const auto first = Row(codes.slice(1, 0, 1), 0);
  data::AddOpenVideo(layout_, std::vector<int32_t>(first.begin(), first.end()), prompt);
  EXPECT_EQ(Row(Frames({prompt}, Greedy(1)), 0), Row(codes.slice(1, 1), 0));
}

TEST_F(GenerationTest, TextAfterClipsIsThatOfEachRowAlone) {
  std::vector<data::MultimodalSequence> prompts(3, Text({1}));
  for (int32_t b = 0; b < 3; ++b) {
    std::vector<int32_t> codes(static_cast<size_t>(6 * (b + 1)), 11 * b);
    data::AddVideo(layout_, codes, prompts[static_cast<size_t>(b)]);
  }
  std::vector<GenerateRequest> requests;
  for (const data::MultimodalSequence& prompt : prompts) requests.push_back(Mixed(prompt, 12, 0));
  const auto together = Generate(model_, requests, {.layout = &layout_});
  for (size_t b = 0; b < 3; ++b) {
    EXPECT_EQ(together[b].added.size(), 12);
    EXPECT_EQ(Generate(model_, {requests[b]}, {.layout = &layout_})[0].added.id_n,
              together[b].added.id_n);
  }
  auto config = config_;
  config.eos_token_id = -1;
  config.more_eos_token_ids = {together[1].added.id_n[4]};
  for (GenerateRequest& request : requests) request.ignore_eos = false;
  const auto ended = Generate(DecodeModel(config, weights_), requests, {.layout = &layout_});
  const auto& all = together[1].added.id_n;
  EXPECT_EQ(ended[1].added.id_n,
            std::vector<int64_t>(all.begin(), std::find(all.begin(), all.end(), all[4]) + 1));
}

// Whatever is drawn, codes and delimiters stand where the layout wants them.
TEST_F(GenerationTest, HeadsAlternateAsTheSequenceSays) {
  std::vector<GenerateRequest> requests(2, Mixed(Text({1, 7}), 400, 100));
  requests[1].text_seed = requests[1].vision_seed = 43;
  for (GenerateRequest& request : requests) request.video.max_frames = 3;
  int64_t videos = 0, eofs = 0;
  // Ten text ids, so that <vision> = 7 8 comes by chance.
  for (const GeneratedSequence& sequence :
       Generate(model_, requests, {.text = 10, .layout = &layout_})) {
    const data::MultimodalSequence& added = sequence.added;
    std::vector<int64_t> text = {1, 7};
    int64_t in_frame = 0, frames = 0;
    for (int64_t i = 0; i < added.size(); ++i) {
      const int64_t id = added.id_n[static_cast<size_t>(i)];
      const bool opened = text.size() >= 2 && text[text.size() - 2] == 7 && text.back() == 8;
      ASSERT_EQ(added.vision_n[static_cast<size_t>(i)] != 0, opened) << i;
      if (!opened) {
        text.push_back(id);
      } else if (in_frame < 6) {
        ASSERT_LT(id, 80) << i;
        ++in_frame;
      } else {
        ASSERT_TRUE(id == layout_.eof() || id == layout_.eov()) << i;
        in_frame = 0;
        ASSERT_LE(++frames, 3);
        eofs += id == layout_.eof();
        if (id == layout_.eov()) text.clear(), frames = 0, ++videos;
      }
    }
  }
  EXPECT_GT(videos, 3);
  EXPECT_GT(eofs, 3);
}

TEST_F(GenerationTest, TextStopsWhenTheContextIsFull) {
  config_.max_position_embeddings = 8;
  const DecodeModel model(config_, weights_);
  const auto text = Generate(model, {Mixed(Text({1, 2, 3, 4, 5}), 256, 1)}, {.layout = &layout_});
  EXPECT_EQ(text[0].added.size(), 4);
  EXPECT_EQ(text[0].stop, GeneratedSequence::Stop::kContextFull);
  EXPECT_EQ(MessageOf([&] { GenerateFrames(model, layout_, {Prompt({1})}, {}, Greedy(2)); }),
            "prompt and new tokens are 16, the model's context (max_position_embeddings) is 8; "
            "shorten the prompt or ask for fewer");
}

TEST_F(GenerationTest, BadRequestsAreRefused) {
  EXPECT_EQ(MessageOf([&] {
              Frames({Text({1, 2})}, Greedy(1));
            }),
            "the prompt of a frame must end with <vision> or a whole frame");
  data::MultimodalSequence broken = Prompt({1});
  broken.Add(5, true);  // inside a frame
  EXPECT_EQ(MessageOf([&] { Frames({broken}, Greedy(1)); }),
            "the prompt of a frame must end with <vision> or a whole frame");
  FrameOptions guided = Greedy(1);
  guided.scale = 5;
  EXPECT_EQ(MessageOf([&] { Frames(prompts_, guided, {}); }),
            "guidance wants an unconditional sequence for each of 3 prompts, got 0");
  guided.scale = 1;
  guided.seeds = {1, 2};
  EXPECT_EQ(MessageOf([&] { Frames(prompts_, guided); }),
            "2 seeds for 3 prompts: give one, or one for each");
  EXPECT_ERROR(Frames({}, Greedy(1)), kInvalidArgument);
  EXPECT_ERROR(Frames(prompts_, Greedy(0)), kInvalidArgument);
  data::MultimodalSequence video;
  EXPECT_EQ(MessageOf([&] { data::AddVideo(layout_, std::vector<int32_t>(6, 80), video); }),
            "vision code 80 at index 0, want 0 to 79");
  EXPECT_EQ(MessageOf([&] { data::AddVideo(layout_, std::vector<int32_t>(7, 1), video); }),
            "a video of 7 codes has no whole number of frames of 6");
}

}  // namespace
}  // namespace lwm::infer
