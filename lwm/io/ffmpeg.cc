#include "lwm/io/ffmpeg.h"

extern "C" {
#include <libavutil/log.h>
#include <libavutil/mem.h>
}

#include "lwm/io/ffmpeg_input.h"

namespace lwm::io {

void PrepareFfmpeg() {
  static const bool done = [] {
    av_log_set_callback(FfmpegInput::NoteLog);
    // Headers state sizes: a hostile one must not get more than 1 GiB in one allocation.
    av_max_alloc(size_t{1} << 30);
    return true;
  }();
  (void)done;
}

}  // namespace lwm::io
