#include "lwm/data/multimodal_sequence.h"

#include <cmath>

#include "lwm/base/error.h"

namespace lwm::data {
namespace {

void AddFrames(const FrameLayout& layout, std::span<const int32_t> codes, bool closed,
               MultimodalSequence& sequence) {
  const auto count = static_cast<int64_t>(codes.size());
  LWM_REQUIRE(count % layout.tokens_per_frame == 0, "a video of ", count,
              " codes has no whole number of frames of ", layout.tokens_per_frame);
  sequence.AddText(layout.begin_ids);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t code = codes[static_cast<size_t>(i)];
    LWM_REQUIRE(code >= 0 && code < layout.codes, "vision code ", code, " at index ", i,
                ", want 0 to ", layout.codes - 1);
    sequence.Add(code, true);
    if ((i + 1) % layout.tokens_per_frame == 0)
      sequence.Add(closed && i + 1 == count ? layout.eov() : layout.eof(), true);
  }
}

}  // namespace

FrameLayout MakeFrameLayout(const config::VqganConfig& vqgan, const config::ModelConfig& model,
                            const Tokenizer& tokenizer) {
  FrameLayout layout;
  const int64_t own_side = vqgan.sample_size / vqgan.Reduction();
  const int64_t codes = model.codes_per_frame > 0 ? model.codes_per_frame : own_side * own_side;
  const int64_t side = std::llround(std::sqrt(static_cast<double>(codes)));
  LWM_REQUIRE(side * side == codes, "the model's frames have ", codes,
              " codes (codes_per_frame in its config.json), which make no square: such frames "
              "cannot be turned into images");
  layout.tokens_per_frame = codes;
  layout.frame_size = side * vqgan.Reduction();
  layout.codes = vqgan.num_vq_embeddings;
  LWM_REQUIRE(model.has_vision(),
              "the model has no vision vocabulary: it reads and writes text only");
  LWM_REQUIRE(model.vision_vocab_size >= layout.codes + 2, "the model's vision_vocab_size is ",
              model.vision_vocab_size, ", the VQGAN's ", layout.codes,
              " codes and 2 delimiters do not fit; they do not belong together");
  layout.begin_ids = tokenizer.Encode("<vision>");
  layout.end_ids = tokenizer.Encode("</vision>");
  LWM_REQUIRE(!layout.begin_ids.empty(), "the tokenizer cannot write <vision>");
  return layout;
}

void AddVideo(const FrameLayout& layout, std::span<const int32_t> codes,
              MultimodalSequence& sequence) {
  LWM_REQUIRE(!codes.empty(), "a video without frames");
  AddFrames(layout, codes, /*closed=*/true, sequence);
  sequence.AddText(layout.end_ids);
}

void AddOpenVideo(const FrameLayout& layout, std::span<const int32_t> codes,
                  MultimodalSequence& sequence) {
  AddFrames(layout, codes, /*closed=*/false, sequence);
}

}  // namespace lwm::data
