#include "lwm/infer/constraint.h"

#include <algorithm>

namespace lwm::infer {

void FrameConstraint::Read(int64_t id, bool vision) {
  if (!layout_) return;
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
  if (video_.endless) return {layout_->eof(), layout_->eof() + 1};
  // After the last allowed frame only eov, which ends the video.
  const bool is_last = video_.max_frames > 0 && frames_ + 1 >= video_.max_frames;
  return {is_last ? layout_->eov() : layout_->eof(), layout_->eov() + 1};
}

}  // namespace lwm::infer
