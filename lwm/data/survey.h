#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lwm/data/example_source.h"
#include "lwm/data/packing.h"

namespace lwm::data {

// Counts of a source's lines, read before training begins.
struct SourceSurvey {
  std::string name;     // of the source
  int64_t lines = 0;    // of JSONL files: text documents are cut to fit
  int64_t read = 0;     // all, or as many as a sample has
  int64_t skipped = 0;  // of the read ones: no example, or never shown (weight 0)
  int64_t longer_than_row = 0;
  int64_t without_target = 0;
  bool has_documents = false;  // which always have something to learn
};

// Reads lines in a fixed random order, so that a sample is one: up to 20000 lines and 4 M tokens
// (about 2 s). Throws what reading throws.
SourceSurvey SurveySource(const ExampleSource& source, const PackingConfig& packing);

// The survey's warnings, a line each. Throws Error(kInvalidArgument) when there are lines and no
// token to learn in any of them or in a document.
std::vector<std::string> Describe(const SourceSurvey& survey, const PackingConfig& packing);

}  // namespace lwm::data
