#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/code_cache.h"
#include "lwm/data/packing.h"
#include "lwm/data/row.h"
#include "lwm/data/tokenizer.h"

namespace lwm::data {

// Where examples come from.
struct SourceConfig {
  std::vector<std::string> paths;   // see FindDocuments
  double share = 1;                 // of the rows, relative to the other sources
  std::vector<std::string> fields;  // of JSONL lines without "fields", see FieldGrammar
  int64_t min_document_tokens = 0;  // text files: shorter ones are left out
  int64_t max_document_tokens = 0;  // text files: longer ones are left out; 0 = no limit
  int64_t max_frames = 0;           // vision fields are thinned to this many frames; 0 = all
  std::string prepend_text;         // JSONL: put before the first field if that is text
  double drop_text = 0;             // JSONL: see FieldGrammar
  bool order_by_visit = false;      // JSONL: see FieldGrammar
  bool line_weights = false;        // JSONL: see jsonl_source.h
};

struct LoaderConfig {
  std::vector<SourceConfig> sources;
  PackingConfig packing;
  uint64_t seed = 42;
  double held_out_fraction = 0;             // of the units of each source, never trained on
  std::vector<std::string> held_out_paths;  // instead: files of their own
  bool skip_bad_lines = false;  // JSONL lines that are no example: skip instead of an error
  bool warn = true;             // of skipped lines, on stderr
  bool allow_changed = false;   // see RestoreState
  std::shared_ptr<data::CodeCache> media;  // encodes what JSONL lines name; nullptr = codes only
  int64_t codes_per_frame = 256;           // without media
  int64_t codebook_size = 8192;            // without media
  int prefetch_rows = 2;        // rows made ahead by a thread of the loader; 0 = no thread
  std::filesystem::path cache;  // folder for token files of text sources; "" = tokens in memory
};

// A finite run of rows.
class RowSequence {
 public:
  virtual ~RowSequence() = default;
  // The next row, or nothing at the end.
  virtual std::optional<Row> Next() = 0;
};

// Endless training rows. Every rank of a run reads the same ones.
//
// Units and epochs. A text file is a document (BOS, tokens, EOS), cut into consecutive units of at
// most S tokens, so that an epoch shows every token of every book once; with kConcatenate the books
// are joined first. A JSONL line is one unit. Every epoch visits all units of a source (with
// weights as often as those say) in an order drawn from (seed, source, epoch). What else a visit
// draws follows from (seed, source, epoch, unit). Rows hold units of one source; sources take turns
// so that the rows, and so the tokens, keep to the shares.
//
// Exact resume. RestoreState(SaveState()) in a loader with the same config and files continues with
// the identical next row; SaveState counts the rows that Next has returned, not the prefetched
// ones. Other texts, another seed, row length or source list are refused, or with allow_changed
// begin with their first epoch; other shares hold from there on; media that lines name are not
// looked at.
//
// Errors of the reading thread are thrown by Next. Cost: opening tokenises text sources (10 MB/s,
// unless cached) and scans JSONL for line ends; memory is the tokens of the text sources (4 B
// each), or mapped pages with a cache, and 16 B per JSONL line.
class RowLoader {
 public:
  RowLoader(const LoaderConfig& config, std::shared_ptr<const Tokenizer> tokenizer);
  ~RowLoader();
  RowLoader(const RowLoader&) = delete;
  RowLoader& operator=(const RowLoader&) = delete;

  Row Next();

  // A small JSON object.
  Json SaveState() const;
  // Of other data: with allow_changed returns false, and the rows begin anew; else throws
  // Error(kInvalidArgument) naming what differs. Throws Error(kCorruptData) when it is no state.
  bool RestoreState(const Json& state);

  // The held-out rows from their beginning, in a fixed order.
  std::unique_ptr<RowSequence> HeldOut() const;

  // Encodes the media of every parts-th line, beginning with line `part`, into their cache, so that
  // reading finds all of it there; progress(lines done, lines of this part) after each.
  void EncodeMedia(int64_t part, int64_t parts,
                   const std::function<void(int64_t done, int64_t total)>& progress) const;

  // Reads the examples, a sample if they are many or long, and returns a line for each problem:
  // longer than a row, nothing to learn. Throws Error(kInvalidArgument) when no example of a source
  // or none held out has a token to learn, and what reading throws.
  std::vector<std::string> Survey() const;

  // For the log: units, tokens (-1 = not counted, JSONL), files of all sources.
  struct Summary {
    int64_t files = 0, train_units = 0, held_out_units = 0, tokens = 0;
    std::vector<std::string> notes;  // of FindDocuments
  };
  Summary summary() const;
  // Bad lines skipped so far, each counted once.
  int64_t skipped() const;
  // Epochs that source 0 has completed, fractional, at the last row returned.
  double epoch() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lwm::data
