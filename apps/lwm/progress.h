#pragma once

#include <cstdint>
#include <string>

#include "lwm/base/pace.h"

namespace lwm::app {

// Prints progress to stderr: on a terminal one line, rewritten a few times a second; in a file
// a line every ten seconds.
class Progress {
 public:
  // `what` in the past tense, "encoded"; `unit` is what Update counts, "frame".
  explicit Progress(const char* what = "", const char* unit = "");
  ~Progress();

  // `done` units so far; `share` of all work in [0, 1], 0 = not known. When it is time, shows
  // "encoded 120 frames, 12.3 frames/s, 45.0 %, 2 min 05 s left".
  void Update(int64_t done, double share);
  // The same for `more` units.
  void Add(int64_t more, double share) { Update(done_ + more, share); }
  // Ends with a line of the units done, their rate, how busy the threads were and the peak memory.
  void Finish(int threads);

  // Lines of the caller's own: whether it is time, the next, and one that stays at the end.
  bool is_due() const { return pace_.is_due(); }
  void Show(const std::string& line);
  void Finish(const std::string& line);

  double seconds() const { return pace_.seconds(); }

 private:
  std::string Rate() const;

  const char *what_, *unit_;
  bool terminal_;
  bool is_open_ = false;  // a line stands that can be rewritten
  int64_t done_ = 0;
  double start_cpu_ = ProcessSeconds();
  Pace pace_;
};

}  // namespace lwm::app
