#include "lwm/infer/sampling_advice.h"

#include <string>

#include "lwm/base/error.h"
#include "lwm/base/json.h"

namespace lwm::infer {
namespace {

template <class T>
std::optional<T> Find(const Json& object, const char* key, const std::string& where) {
  if (!object.contains(key) || object.at(key).is_null()) return {};
  return JsonGet<T>(object, key, where);
}

void RequireInDomain(const SamplingAdvice& advice, const std::string& where) {
  SamplingOptions options;
  options.repetition_penalty = advice.repetition_penalty.value_or(options.repetition_penalty);
  options.temperature = advice.temperature.value_or(options.temperature);
  options.top_k = advice.top_k.value_or(options.top_k);
  options.top_p = advice.top_p.value_or(options.top_p);
  try {
    options.Validate();
  } catch (const Error& error) {
    throw Error(ErrorCode::kCorruptData, Cat(where, ": ", error.what()));
  }
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, advice.guidance_scale.value_or(1) >= 0, where,
                 ": guidance_scale = ", *advice.guidance_scale, ", want 0 or more");
}

SamplingAdvice ParseAdvice(const Json& object, const std::string& where) {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, object.is_object(), where, ": want a JSON object");
  SamplingAdvice advice{.repetition_penalty = {},
                        .temperature = Find<double>(object, "temperature", where),
                        .top_k = Find<int64_t>(object, "top_k", where),
                        .top_p = Find<double>(object, "top_p", where),
                        .guidance_scale = Find<double>(object, "guidance_scale", where)};
  if (Find<bool>(object, "do_sample", where) == false) advice.temperature = 0;
  return advice;
}

}  // namespace

ModelSamplingAdvice ReadSamplingAdvice(const std::filesystem::path& model) {
  const std::filesystem::path file = model / "generation_config.json";
  std::error_code no_error;
  if (!std::filesystem::exists(file, no_error)) return {};
  const Json object = ReadJsonFile(file);
  ModelSamplingAdvice advice{.text = ParseAdvice(object, file.string()), .vision = {}};
  advice.text.repetition_penalty = Find<double>(object, "repetition_penalty", file.string());
  RequireInDomain(advice.text, file.string());
  if (object.contains("vision_sampling")) {
    const std::string where = file.string() + ": vision_sampling";
    advice.vision = ParseAdvice(JsonGet<Json>(object, "vision_sampling", file.string()), where);
    RequireInDomain(advice.vision, where);
  }
  return advice;
}

}  // namespace lwm::infer
