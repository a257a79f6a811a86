#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/row.h"
#include "lwm/data/tokenizer.h"

namespace lwm::data {

// How a JSONL object becomes an example. The object's "fields" (a string, or a list of which one is
// drawn by the line's index) lists what comes in order, separated by commas:
//   name      the text under that key; learned
//   [name]    the same, given and not learned
//   a+b       texts joined with subfield_separator, then encoded as one
//   <|bos|> <|eos|>   those tokens
// A field whose name contains "vision" holds a flat list of codes, tokens_per_frame per frame; it
// becomes "<vision>", per frame its codes and eof_code (eov_code after the last), "</vision>".
// BOS (not learned) and EOS (learned) are put around all of it.
struct FieldGrammar {
  std::string fields;     // for objects without "fields"; "" = "text"
  int fields_index = -1;  // of a list of fields, take this one; -1 = drawn
  bool add_bos = true, add_eos = true;
  std::string prepend_text;  // put before the first field if that is text
  std::string subfield_separator = " ";
  int64_t max_frames = 0;  // more frames are thinned evenly to this many; 0 = all
  int64_t tokens_per_frame = 256;
  int32_t eof_code = 8192, eov_code = 8193;  // codes of a frame are below eof_code
};

// Throws Error(kCorruptData) naming `where` and the field that is missing or malformed.
//   line_index  from 0, blank lines counted: draws the entry of a list of fields as CPython's
//               random.Random(line_index).choice does
Example BuildExample(const Json& object, int64_t line_index, const std::string& where,
                     const Tokenizer& tokenizer, const FieldGrammar& grammar);

// The frames kept when `frames` are thinned to `kept`: floor of evenly spaced numbers from 0 to
// frames - 1, both ends included (f64).
std::vector<int64_t> ThinFrames(int64_t frames, int64_t kept);

}  // namespace lwm::data
