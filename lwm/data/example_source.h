#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "lwm/data/documents.h"
#include "lwm/data/field_grammar.h"
#include "lwm/data/row.h"
#include "lwm/data/tokenizer.h"

namespace lwm::data {

// "books/a.txt", "books/a.txt and 4 other files".
std::string NameOfFiles(const std::vector<DocumentFile>& files);

// A fixed list of units that can be read in any order, from any thread.
class ExampleSource {
 public:
  virtual ~ExampleSource() = default;
  virtual int64_t units() const = 0;
  virtual int64_t files() const = 0;
  virtual int64_t tokens() const = 0;  // of all units; -1 = not counted
  // 0 <= unit < units(). What is drawn anew at every visit follows from the epoch; kHeldOut: none
  // of that. An empty example: a bad line that is skipped.
  virtual Example Read(int64_t unit, int64_t epoch) const = 0;
  static constexpr int64_t kHeldOut = -1;

  // How often an epoch visits the unit, on average; without weights once.
  virtual bool has_weights() const { return false; }
  virtual double Weight(int64_t /*unit*/) const { return 1; }

  // Number of units cut from documents, which come first: each fits in a row and has something to
  // learn. The others must be read to know.
  virtual int64_t pieces() const { return 0; }

  // Changes with the text of the files, whatever they are called, packed or not.
  virtual std::string fingerprint() const = 0;
  virtual std::string name() const = 0;  // for messages: of the first file, and how many more

  // Bad lines that were skipped so far, each counted once.
  virtual int64_t skipped() const { return 0; }

  // Encodes the media of the units part, part + parts, ... into their cache; done(1) after each.
  virtual void EncodeMedia(int64_t /*part*/, int64_t /*parts*/,
                           const std::function<void(int64_t units)>& /*done*/) const {}
};

// The units of several sources, one after the other; text before JSONL.
std::unique_ptr<ExampleSource> JoinSources(std::vector<std::unique_ptr<ExampleSource>> sources);

}  // namespace lwm::data
