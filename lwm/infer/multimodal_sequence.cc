#include "lwm/infer/multimodal_sequence.h"

#include <algorithm>
#include <cmath>

#include "lwm/base/error.h"

namespace lwm::infer {
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
                            const data::Tokenizer& tokenizer) {
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

void FrameConstraint::Read(int64_t id, bool vision) {
  if (vision) {
    if (!in_video_) frames_ = codes_ = 0;  // a video that nothing announced
    in_video_ = true;
    tail_n.clear();
    if (codes_ < layout_->tokens_per_frame) {
      ++codes_;
      return;
    }
    // The token after a frame's last code is its delimiter, whatever its id.
    codes_ = 0;
    ++frames_;
    in_video_ = id != layout_->eov();
    return;
  }
  // Text inside a video ends it: the published code goes on with "</vision>" after an eof.
  in_video_ = false;
  tail_n.push_back(id);
  if (tail_n.size() > layout_->begin_ids.size()) tail_n.erase(tail_n.begin());
  if (!EndsWithBegin()) return;
  in_video_ = true;
  frames_ = codes_ = 0;
}

bool FrameConstraint::EndsWithBegin() const {
  return std::equal(tail_n.begin(), tail_n.end(), layout_->begin_ids.begin(),
                    layout_->begin_ids.end());
}

FrameConstraint::Range FrameConstraint::Allowed(int64_t text_vocabulary) const {
  if (!in_video_) return {0, text_vocabulary};
  if (codes_ < layout_->tokens_per_frame) return {0, layout_->codes};
  // After the last allowed frame only eov, which ends the video.
  const bool is_last = max_frames_ > 0 && frames_ + 1 >= max_frames_;
  return {is_last ? layout_->eov() : layout_->eof(), layout_->eov() + 1};
}

}  // namespace lwm::infer
