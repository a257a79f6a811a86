#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lwm/config/model_config.h"
#include "lwm/config/vqgan_config.h"
#include "lwm/data/tokenizer.h"

namespace lwm::data {

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
                            const Tokenizer& tokenizer);

// Appends "<vision>", the frames and "</vision>".
//   codes  in  one or more whole frames, each below layout.codes
// Throws Error(kInvalidArgument).
void AddVideo(const FrameLayout& layout, std::span<const int32_t> codes,
              MultimodalSequence& sequence);

// Appends the beginning of a video that is to go on: "<vision>", then each frame with eof.
void AddOpenVideo(const FrameLayout& layout, std::span<const int32_t> codes,
                  MultimodalSequence& sequence);

}  // namespace lwm::data
