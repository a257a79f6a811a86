#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lwm::data {

// The kind of a file, judged by its beginning.
struct ContentKind {
  enum class Form {
    kEmpty,    // no byte, or white space only
    kUtf8,     // text, perhaps behind a byte order mark
    kUtf16Le,  // text behind a byte order mark; so for the next three
    kUtf16Be,
    kUtf32Le,
    kUtf32Be,
    kGzip,
    kOther,  // not text; `name` says what it is
  };
  Form form = Form::kUtf8;
  std::string name = {};  // "a PNG image", for messages; empty for text
};

// Bytes that RecognizeContent wants to see, unless the content is shorter.
inline constexpr size_t kContentHeadBytes = 1 << 16;

// Judges the first bytes of a content (all of it if is_whole): known formats by their signatures,
// anything else with a NUL or with bytes that are no UTF-8 as binary or as text of another
// encoding, naming the first such byte.
ContentKind RecognizeContent(std::string_view head, bool is_whole);

// "an HTML page" or "XML", for a text that begins so; else "".
std::string MarkupName(std::string_view text);

// How JSON a text is, by its beginning.
enum class JsonForm {
  kNone,
  kLines,      // an object on every line
  kArray,      // one array of objects
  kOneObject,  // one object over several lines
};
JsonForm RecognizeJson(std::string_view head, bool is_whole);

}  // namespace lwm::data
