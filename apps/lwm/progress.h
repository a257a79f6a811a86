#pragma once

#include <string>

#include "lwm/base/process.h"

namespace lwm::app {

// Prints progress to stderr: on a terminal one line, rewritten a few times a second; in a file
// a line every ten seconds.
class Progress {
 public:
  Progress();
  ~Progress();

  // Whether it is time for the next line.
  bool is_due() const;
  void Show(const std::string& line);
  // Ends with a line that stays.
  void Finish(const std::string& line);

 private:
  bool terminal_;
  bool is_open_ = false;  // a line stands that can be rewritten
  double shown_ = MonotonicSeconds();
};

}  // namespace lwm::app
