#pragma once

#include <cstdint>
#include <vector>

#include "lwm/data/multimodal_sequence.h"
#include "lwm/infer/decode_model.h"

namespace lwm::infer {

// Tracks a sequence token by token and says which ids may come next.
class FrameConstraint {
 public:
  // The video that a sequence is in when it is continued, or that it begins.
  struct Video {
    int64_t max_frames = 0;  // at most so many frames (those that are read count); 0 = no limit
    bool endless = false;    // goes on after every frame: the caller decides how many there are
  };

  // `layout` nullptr: a model of text only. It must outlive this object.
  FrameConstraint(const data::FrameLayout* layout, const Video& video)
      : layout_(layout), video_(video) {}

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

  const data::FrameLayout* layout_;
  Video video_;
  bool in_video_ = false;
  int64_t frames_ = 0;          // whole ones of the video
  int64_t codes_ = 0;           // read of the frame
  std::vector<int64_t> tail_n;  // text tokens since the last vision code, at most begin_ids.size()
};

}  // namespace lwm::infer
