#include "lwm/config/generation_config.h"

#include <algorithm>

#include "lwm/base/error.h"

namespace lwm::config {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFile = "generation_config.json";

void AddEos(int64_t id, ModelConfig& config) {
  if (id < 0 || config.EndsText(id)) return;
  if (config.eos_token_id < 0)
    config.eos_token_id = id;
  else
    config.more_eos_token_ids.push_back(id);
}

}  // namespace

void AddGenerationEos(const fs::path& folder, ModelConfig& config) {
  const fs::path file = folder / kFile;
  if (!fs::exists(file)) return;
  const Json json = ReadJsonFile(file);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, json.is_object(), file.string(), ": want a JSON object");
  const Json eos = json.value("eos_token_id", Json());
  if (eos.is_null()) return;
  for (const Json& id : eos) {  // of a number: itself
    if (!id.is_number_integer())
      ThrowJsonField(file.string(), "eos_token_id",
                     "must be an integer or a list of integers, is " + eos.dump().substr(0, 60));
    AddEos(id.get<int64_t>(), config);
  }
}

std::string WithEosOf(const ModelConfig& config, const std::string& generation) {
  Json json = ParseJson(generation, kFile);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, json.is_object(), kFile, ": want a JSON object");
  if (config.eos_token_id < 0) return generation;
  std::vector<int64_t> ids = config.more_eos_token_ids;
  ids.insert(ids.begin(), config.eos_token_id);
  const Json eos = ids.size() == 1 ? Json(ids[0]) : Json(ids);
  if (json.value("eos_token_id", Json()) == eos) return generation;
  json["eos_token_id"] = eos;
  return json.dump(2) + "\n";
}

std::vector<std::string> SettingsNotFollowed(const Json& generation) {
  // Each with the value that changes nothing.
  const std::pair<const char*, Json> settings[] = {{"encoder_repetition_penalty", 1},
                                                   {"no_repeat_ngram_size", 0},
                                                   {"encoder_no_repeat_ngram_size", 0},
                                                   {"num_beams", 1},
                                                   {"num_beam_groups", 1},
                                                   {"guidance_scale", 1},
                                                   {"min_length", 0},
                                                   {"min_new_tokens", 0},
                                                   {"penalty_alpha", 0},
                                                   {"bad_words_ids", nullptr},
                                                   {"force_words_ids", nullptr},
                                                   {"suppress_tokens", nullptr},
                                                   {"begin_suppress_tokens", nullptr},
                                                   {"forced_bos_token_id", nullptr},
                                                   {"forced_eos_token_id", nullptr},
                                                   {"sequence_bias", nullptr},
                                                   {"exponential_decay_length_penalty", nullptr},
                                                   {"stop_strings", nullptr},
                                                   {"constraints", nullptr}};
  std::vector<std::string> found;
  for (const auto& [key, harmless] : settings) {
    const Json value = generation.is_object() ? generation.value(key, Json()) : Json();
    const bool empty = value.is_null() || (value.is_structured() && value.empty());
    if (!empty && value != harmless) found.push_back(Cat(key, ' ', value.dump().substr(0, 60)));
  }
  return found;
}

}  // namespace lwm::config
