#pragma once

#include <CLI/CLI.hpp>

#include "lwm/data/field_grammar.h"

namespace lwm::app {

// The flags of the field grammar, the same wherever JSONL is read.
void AddGrammarFlags(CLI::App& command, data::FieldGrammar& grammar);

}  // namespace lwm::app
