#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace lwm::app {

// Advice on an argument that a command does not know, "--steps" with the word after it ("10", or ""
// at the end): the end of a sentence, "a key of the recipe: --set train.steps=10"; "" without any.
// `exact` names count before the nearest argument of the command, others after it.
using Advice =
    std::function<std::string(const std::string& name, const std::string& value, bool exact)>;
void SetAdvice(const CLI::App& command, Advice advice);

// The line for an error of parsing `arguments`: it names the argument, and the nearest known one,
// the command's advice or its help.
std::string ExplainParseError(const CLI::App& root, const CLI::ParseError& error,
                              const std::vector<std::string>& arguments);

}  // namespace lwm::app
