#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/config/model_config.h"

namespace lwm::config {

// generation_config.json, which Hugging Face's models keep beside config.json. Every id that either
// names ends a text; config.json's come first.

// Adds the ids of `folder`/generation_config.json, if there is one, to those that end a text.
// Throws Error(kCorruptData) naming the file and the key.
void AddGenerationEos(const std::filesystem::path& folder, ModelConfig& config);

// The file's text `generation` with all of the config's end-of-text ids, so that a program that
// reads only this file stops where this one does; as it is when it names them already. Throws
// Error(kCorruptData) when it is no JSON object.
std::string WithEosOf(const ModelConfig& config, const std::string& generation);

// Keys of a generation config that would change the tokens or the end of a text drawn greedily, and
// that this program does not follow, as "num_beams 4".
std::vector<std::string> SettingsNotFollowed(const Json& generation);

}  // namespace lwm::config
