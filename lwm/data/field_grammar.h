#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/code_cache.h"
#include "lwm/data/row.h"
#include "lwm/data/tokenizer.h"

namespace lwm::data {

// How a JSONL object becomes an example. The object's "fields" (a string, or a list of which one is
// drawn by the line's index) lists what comes in order, separated by commas:
//   name      the text under that key; learned
//   [name]    the same, given and not learned
//   a+b       texts joined with subfield_separator, then encoded as one
//   <|bos|> <|eos|>   those tokens
// A field whose name contains "vision" holds a flat list of codes, tokens_per_frame per frame, or
// media (see VisionCodes); it becomes "<vision>", per frame its codes and eof_code (eov_code after
// the last), "</vision>". BOS (not learned; where Tokenizer::leading_bos() has one) and EOS
// (learned) are put around all of it. An object without "fields" that has "chat", or "messages" and
// neither "text" nor fields of the grammar, is a conversation (see ChatParts).
struct FieldGrammar {
  std::vector<std::string> fields;  // for objects without "fields", as there; empty = "text"
  int fields_index = -1;            // of a list of fields, take this one; -1 = drawn
  bool order_by_visit = false;      // draw from a list anew at every visit, not by the line's index
  double drop_text = 0;             // chance that the texts before a learned vision field are left
                                    // out, for guidance without a condition; drawn at every visit
  bool add_bos = true, add_eos = true;
  std::string prepend_text;  // put before the first field if that is text
  std::string subfield_separator = " ";
  int64_t max_frames = 0;                    // more frames are thinned evenly to this many; 0 = all
  int64_t tokens_per_frame = 256;            // fewer codes are an error
  int32_t eof_code = 8192, eov_code = 8193;  // codes of a frame are below eof_code
  bool whole_frames = false;  // codes beyond the last whole frame: an error, not left out
  std::shared_ptr<data::CodeCache> media;  // encodes images and videos; nullptr = codes only
};

// Encodes media with `media`, whose VQGAN says how many codes a frame has and which code ends it.
void UseMedia(FieldGrammar& grammar, std::shared_ptr<data::CodeCache> media);

// Where an object stands.
struct LinePlace {
  int64_t index = 0;                  // of the line, from 0, blank lines counted
  std::string where = {};             // "file.jsonl:17", for messages
  std::filesystem::path folder = {};  // that paths of media are relative to
  // Seed of this visit's draws. Unset: no text is dropped, and a list of fields is drawn by the
  // line's index.
  std::optional<uint64_t> draw_key = {};
};

// Throws Error(kCorruptData) naming place.where and the field that is missing or malformed: a text
// with a NUL, codes that the codebook does not have, media that cannot be decoded, and so on. The
// line's index draws the entry of a list of fields as CPython's random.Random(index).choice does.
Example BuildExample(const Json& object, const LinePlace& place, const Tokenizer& tokenizer,
                     const FieldGrammar& grammar);

// The frames kept when `frames` are thinned to `kept`: floor of evenly spaced numbers from 0 to
// frames - 1, both ends included (f64).
std::vector<int64_t> ThinFrames(int64_t frames, int64_t kept);

}  // namespace lwm::data
