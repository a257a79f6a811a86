#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "lwm/config/model_config.h"
#include "lwm/config/vqgan_config.h"
#include "lwm/data/tokenizer.h"
#include "lwm/infer/decode_model.h"

namespace lwm::infer {

// Text tokens and vision codes in one order.
struct MultimodalSequence {
  std::vector<int64_t> id_n;
  std::vector<uint8_t> vision_n;  // 1 = vision code

  int64_t size() const { return static_cast<int64_t>(id_n.size()); }
  void Add(int64_t id, bool vision) {
    id_n.push_back(id);
    vision_n.push_back(vision ? 1 : 0);
  }
  void AddText(std::span<const int32_t> ids) {
    for (const int32_t id : ids) Add(id, false);
  }
};

// How frames stand in a sequence: the text tokens of "<vision>", then per frame its codes and the
// delimiter eof (eov after the last frame of a video), then the text tokens of "</vision>".
struct FrameLayout {
  int64_t tokens_per_frame = 256;  // a square number
  int64_t codes = 8192;            // of the codebook; codes of a frame are below
  std::vector<int32_t> begin_ids, end_ids;
  int64_t frame_size = 256;  // side of a frame, pixels

  int64_t eof() const { return codes; }
  int64_t eov() const { return codes + 1; }
};

// The layout of frames of `vqgan` for a model and its tokenizer: of as many codes as the model was
// trained on, or, where its config does not say, at the VQGAN's own size. Throws
// Error(kInvalidArgument) when the model's vision vocabulary has no room for codes and delimiters
// or its frames are not square.
FrameLayout MakeFrameLayout(const config::VqganConfig& vqgan, const config::ModelConfig& model,
                            const data::Tokenizer& tokenizer);

// Appends "<vision>", the frames and "</vision>".
//   codes  in  one or more whole frames, each below layout.codes
// Throws Error(kInvalidArgument).
void AddVideo(const FrameLayout& layout, std::span<const int32_t> codes,
              MultimodalSequence& sequence);

// Appends the beginning of a video that is to go on: "<vision>", then each frame with eof.
void AddOpenVideo(const FrameLayout& layout, std::span<const int32_t> codes,
                  MultimodalSequence& sequence);

// Tracks a sequence token by token and says which ids may come next.
class FrameConstraint {
 public:
  // A video gets at most max_frames frames (those that are read count); 0 = no limit.
  FrameConstraint(const FrameLayout& layout, int64_t max_frames)
      : layout_(&layout), max_frames_(max_frames) {}

  void Read(int64_t id, bool vision);

  // The vocabulary of the next token: vision codes after "<vision>" until eov has been read.
  Head head() const { return in_video_ ? Head::kVision : Head::kText; }
  // A frame may begin here, right after "<vision>" or an eof.
  bool at_frame_begin() const { return in_video_ && codes_ == 0; }

  // The ids of it that may come: [begin, end). Inside a frame the codes, after it a delimiter; in
  // text everything below `text_vocabulary`.
  struct Range {
    int64_t begin, end;
  };
  Range Allowed(int64_t text_vocabulary) const;

 private:
  bool EndsWithBegin() const;

  const FrameLayout* layout_;
  int64_t max_frames_;
  bool in_video_ = false;
  int64_t frames_ = 0;          // whole ones of the video
  int64_t codes_ = 0;           // read of the frame
  std::vector<int64_t> tail_n;  // text tokens since the last vision code, at most begin_ids.size()
};

}  // namespace lwm::infer
