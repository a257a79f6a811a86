#include "flags/grammar_flags.h"

#include <string>

namespace lwm::app {

void AddGrammarFlags(CLI::App& command, data::FieldGrammar& grammar) {
  command
      .add_option("--fields", grammar.fields,
                  "field grammar of lines that have no \"fields\" (default: text); given more than "
                  "once: alternatives")
      ->allow_extra_args(false);
  command
      .add_option("--fields-index", grammar.fields_index,
                  "entry to use of a list of fields; -1: drawn by the line's index")
      ->check(CLI::Range(-1, 1 << 20))
      ->capture_default_str();
  command
      .add_option("--max-frames", grammar.max_frames,
                  "thin vision fields evenly to this many frames; 0: all")
      ->check(CLI::Range(int64_t{-1}, int64_t{1} << 40))
      ->capture_default_str();
  command
      .add_option(
          "--codes-per-frame", grammar.tokens_per_frame,
          "codes per frame in lists of codes; with --vqgan the VQGAN's. Codes after the last whole "
          "frame are left out, as the published code does; training refuses them")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command
      .add_option_function<int32_t>(
          "--codebook-size",
          [&grammar](int32_t codes) {
            grammar.eof_code = codes;
            grammar.eov_code = codes + 1;
          },
          "codebook size of lists of codes; with --vqgan the VQGAN's")
      ->check(CLI::Range(1, 1 << 24))
      ->default_str(std::to_string(grammar.eof_code));
  command.add_option("--prepend-text", grammar.prepend_text,
                     "text put before the first field of a line, if that is text");
  command.add_option("--separator", grammar.subfield_separator, "text between the parts of a+b")
      ->capture_default_str();
  command.add_flag("!--no-bos", grammar.add_bos,
                   "put no BOS before an example, even where the tokenizer's settings want one");
  command.add_flag("!--no-eos", grammar.add_eos, "put no EOS after an example");
}

}  // namespace lwm::app
