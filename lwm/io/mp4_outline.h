#pragma once

#include <cstddef>
#include <span>

namespace lwm::io {

// What the boxes of an MP4 or QuickTime file say of its video, beside what the decoder tells.
struct Mp4Outline {
  bool has_video = false;
  bool has_table = false;     // the frames are listed at one place, so their stated number is exact
  bool is_truncated = false;  // the file ends before its media data does
  bool is_trimmed = false;    // an edit list leaves out frames that the table lists
  int turn_degrees = 0;       // clockwise, to stand upright: 0, 90, 180 or 270
};

// All unset for other files and where boxes are damaged. Reads only headers and small boxes.
Mp4Outline ReadMp4Outline(std::span<const std::byte> file);

}  // namespace lwm::io
