#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lwm/jinja/syntax.h"
#include "lwm/jinja/value.h"

namespace lwm::jinja {

using Variables = std::vector<std::pair<std::string, Value>>;

struct RenderOptions {
  int64_t operations = 20'000'000;     // expressions and statements evaluated, at most
  int64_t bytes = int64_t{128} << 20;  // of all texts and lists made, beyond 16 x the variables'
  int64_t now = -1;                    // seconds since 1970 for strftime_now; -1 = the clock's
};

// A chat template: the part of the Jinja language that chat templates use, rendered as Hugging Face
// transformers renders it (trim_blocks, lstrip_blocks, loop controls, raise_exception,
// strftime_now, {% generation %}). Immutable; rendering is safe from any thread.
//
// It may come from a stranger: nesting, work and memory are bounded, and nothing is read but
// the variables. Source: Jinja's documentation of templates.
class Template {
 public:
  // `where` names the source in messages. Throws as ParseTemplate does.
  Template(std::string_view source, std::string where);

  // The text, with its foreign bytes marked. Throws Error(kCorruptData) naming where, the line and
  // the operation that is wrong or not supported, or the limit that is reached;
  // Error(kInvalidArgument) with the template's own words when it calls raise_exception.
  Text Render(const Variables& variables, const RenderOptions& options = {}) const;

 private:
  std::string where_;
  Block block_;
};

}  // namespace lwm::jinja
