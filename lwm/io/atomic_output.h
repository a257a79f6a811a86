#pragma once

#include <filesystem>

#include "lwm/base/file.h"
#include "lwm/io/background_file.h"

namespace lwm::io {

// A file that is written in pieces beside its place and appears there, whole, on Commit. Without it
// nothing is left behind.
class AtomicOutput {
 public:
  explicit AtomicOutput(const std::filesystem::path& path)
      : path_(path), temporary_(TemporaryBeside(path)), file_(temporary_) {}
  ~AtomicOutput() {
    std::error_code ignored;
    if (!committed_) std::filesystem::remove(temporary_, ignored);
  }
  AtomicOutput(const AtomicOutput&) = delete;
  AtomicOutput& operator=(const AtomicOutput&) = delete;

  BackgroundFile& file() { return file_; }
  // fsyncs, closes and renames.
  void Commit() {
    file_.Finish();
    RenameAndSync(temporary_, path_);
    committed_ = true;
  }

 private:
  std::filesystem::path path_, temporary_;
  BackgroundFile file_;
  bool committed_ = false;
};

}  // namespace lwm::io
