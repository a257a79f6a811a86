// lwm tokenize: text to token ids and back, line by line.

#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "commands.h"
#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/data/tokenizer.h"

namespace lwm::app {
namespace {

std::vector<int32_t> ReadIds(const Json& line, const std::string& where) {
  bool good = line.is_array();
  // Larger ones would wrap to other tokens.
  for (size_t i = 0; good && i < line.size(); ++i)
    good = line[i].is_number_integer() && line[i] >= INT32_MIN && line[i] <= INT32_MAX;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, good, where, ": want a JSON array of token ids, got ",
                 line.dump().substr(0, 60));
  return line.get<std::vector<int32_t>>();
}

Json Convert(const data::Tokenizer& tokenizer, const Json& line, const std::string& where,
             bool decode) {
  if (decode) return tokenizer.Decode(ReadIds(line, where));
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, line.is_string(), where, ": want a JSON string, got ",
                 line.dump().substr(0, 60));
  return tokenizer.Encode(line.get<std::string>());
}

void Run(const std::string& path, bool decode) {
  const auto tokenizer = data::OpenTokenizer(path);
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    const std::string where = Cat("line ", number, " of the input");
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    std::printf("%s\n", Convert(*tokenizer, ParseJson(line, where), where, decode).dump().c_str());
    std::fflush(stdout);  // for programs that talk to this one line by line
  }
}

}  // namespace

void AddTokenize(CLI::App& command) {
  auto path = std::make_shared<std::string>();
  auto decode = std::make_shared<bool>(false);
  command.add_option("--tokenizer", *path, "a .model or .gguf file, or a model directory")
      ->required();
  command.add_flag("--decode", *decode, "the reverse: arrays of ids to strings");
  AddExamples(command,
              "  echo '\"Hello world\"' | lwm tokenize --tokenizer tokenizer.model\n"
              "  echo '[15043, 3186]' | lwm tokenize --tokenizer tokenizer.model --decode");
  command.callback([path, decode] { Run(*path, *decode); });
}

}  // namespace lwm::app
