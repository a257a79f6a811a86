#include "lwm/data/vision_field.h"

#include <algorithm>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/text.h"
#include "lwm/io/media_names.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

bool IsMedia(const Json& value) { return value.is_string() || value.is_object(); }

bool NamesMedia(const Json& value) {
  return IsMedia(value) || (value.is_array() && std::any_of(value.begin(), value.end(), IsMedia));
}

std::vector<int32_t> ListedCodes(const Json& list, const std::string& field, const LinePlace& place,
                                 const FieldGrammar& grammar) {
  const auto per_frame = static_cast<size_t>(grammar.tokens_per_frame);
  LWM_CHECK(per_frame > 0, "frames of no codes");
  if (list.size() < per_frame)
    ThrowJsonField(place.where, field,
                   list.empty() ? "holds no frame"
                                : Cat("has ", list.size(), " codes, fewer than the ", per_frame,
                                      " of a frame"));
  const size_t beyond = list.size() % per_frame;
  if (beyond != 0 && grammar.whole_frames)
    ThrowJsonField(
        place.where, field,
        Cat("has ", list.size(), " codes, which is no multiple of the ", per_frame, " of a frame"));
  std::vector<int32_t> code_n;
  code_n.reserve(list.size());
  for (size_t i = 0; i < list.size() - beyond; ++i) {
    const Json& code = list[i];
    if (!code.is_number_integer() || code < 0 || code >= grammar.eof_code)
      ThrowJsonField(
          place.where, field,
          Cat("has ", code.dump().substr(0, 40), " at index ", i, ", want a code of 0 to ",
              grammar.eof_code - 1, "; codes of another VQGAN?"));
    code_n.push_back(code.get<int32_t>());
  }
  return code_n;
}

double OptionOf(const Json& value, const char* key, const std::string& where,
                const std::string& field, bool whole) {
  if (!value.contains(key)) return 0;
  const Json& number = value.at(key);
  if (!number.is_number() || (whole && !number.is_number_integer()) || number < 0 || number > 1e9)
    ThrowJsonField(where, field,
                   Cat("has \"", key, "\": ", number.dump().substr(0, 40), ", want a ",
                       whole ? "whole number" : "number", " from 0"));
  return number.get<double>();
}

void RequireKnownOptions(const Json& value, const std::string& where, const std::string& field) {
  const std::vector<std::string> known = {"path", "fps", "frames", "start", "type"};
  for (const auto& [key, option] : value.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string nearest = NearestName(key, known);
    ThrowJsonField(where, field,
                   Cat("has the unknown option \"", key, "\"; ",
                       nearest.empty() ? "want path, fps, frames or start"
                                       : Cat("did you mean \"", nearest, "\"?")));
  }
}

data::MediaRequest ParseRequest(const Json& value, const std::string& field, const LinePlace& place,
                                const FieldGrammar& grammar) {
  data::MediaRequest request;
  if (value.is_string()) {
    request.path = value.get<std::string>();
  } else {
    RequireKnownOptions(value, place.where, field);
    if (!value.contains("path") || !value.at("path").is_string())
      ThrowJsonField(place.where, field, "has no \"path\"");
    request.path = value.at("path").get<std::string>();
    request.video.frames_per_second = OptionOf(value, "fps", place.where, field, false);
    request.video.max_frames =
        static_cast<int64_t>(OptionOf(value, "frames", place.where, field, true));
    request.video.start_seconds = OptionOf(value, "start", place.where, field, false);
  }
  RequireNoNul(request.path.string(), place.where, field);
  if (request.path.is_relative()) request.path = place.folder / request.path;
  const bool whole_video = request.video.frames_per_second == 0 && request.video.max_frames == 0;
  if (whole_video && grammar.max_frames > 0 && io::IsVideoName(request.path))
    request.video.max_frames = grammar.max_frames;  // the same frames as thinned later
  return request;
}

std::vector<int32_t> EncodedCodes(const data::MediaRequest& request, const std::string& field,
                                  const LinePlace& place, const FieldGrammar& grammar) {
  if (!grammar.media)
    ThrowJsonField(place.where, field,
                   "is no list of vision codes but names media, and no VQGAN is given to encode "
                   "them");
  try {
    return grammar.media->Codes(request);
  } catch (const Error& error) {
    const bool is_ours =
        error.code() == ErrorCode::kInternal || error.code() == ErrorCode::kResourceExhausted;
    if (is_ours) throw;
    ThrowJsonField(place.where, field, Cat("cannot be encoded: ", error.what()));
  }
}

void VisitChat(Json& chat, const std::string& key,
               const std::function<void(Json& value, const std::string& field)>& visit) {
  for (Json& turn : chat) {
    if (!turn.is_object() || !turn.contains("content") || !turn.at("content").is_array()) continue;
    for (Json& part : turn.at("content")) {
      const bool is_media = part.is_object() && part.contains("path") && !part.contains("codes");
      if (is_media && part.value("type", Json()) != "text") visit(part, key);
    }
  }
}

}  // namespace

bool IsVisionField(const std::string& name) { return name.find("vision") != std::string::npos; }

std::vector<int32_t> VisionCodes(const Json& value, const std::string& field,
                                 const LinePlace& place, const FieldGrammar& grammar) {
  if (!NamesMedia(value)) {
    if (!value.is_array()) ThrowJsonField(place.where, field, "is no list of vision codes");
    return ListedCodes(value, field, place, grammar);
  }
  std::vector<int32_t> code_n;
  for (const data::MediaRequest& request : MediaOf(value, field, place, grammar)) {
    const std::vector<int32_t> of_request = EncodedCodes(request, field, place, grammar);
    code_n.insert(code_n.end(), of_request.begin(), of_request.end());
  }
  return code_n;
}

std::vector<data::MediaRequest> MediaOf(const Json& value, const std::string& field,
                                        const LinePlace& place, const FieldGrammar& grammar) {
  if (!NamesMedia(value)) return {};
  std::vector<data::MediaRequest> requests;
  for (const Json& entry : value.is_array() ? value : Json::array({value})) {
    if (!IsMedia(entry))
      ThrowJsonField(place.where, field, "mixes media with " + entry.dump().substr(0, 40));
    requests.push_back(ParseRequest(entry, field, place, grammar));
  }
  return requests;
}

void ForEachMedia(Json& object,
                  const std::function<void(Json& value, const std::string& field)>& visit) {
  for (auto& [key, value] : object.items()) {
    if ((key == "chat" || key == "messages") && value.is_array()) VisitChat(value, key, visit);
    if (IsVisionField(key) && NamesMedia(value)) visit(value, key);
  }
}

void RequireNoNul(const std::string& text, const std::string& where, const std::string& field) {
  if (text.find('\0') != std::string::npos) ThrowJsonField(where, field, "holds a NUL character");
}

}  // namespace lwm::data
