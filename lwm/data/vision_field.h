#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/field_grammar.h"

namespace lwm::data {

// True when the field holds vision: its name contains "vision".
bool IsVisionField(const std::string& name);

// The codes of a vision value, tokens_per_frame for every frame. It is a flat list of codes, or
//   "x.png", "clip.mp4"     an image or video, relative to place.folder
//   {"path": "clip.mp4", "fps": 2, "frames": 8, "start": 1.5}    vision::VideoOptions; only the
//   path
//                           must be there. A video without fps and frames gives max_frames frames
//   a list of those         one after the other, as frames of one video
// Throws Error(kCorruptData) naming place.where and the field.
std::vector<int32_t> VisionCodes(const Json& value, const std::string& field,
                                 const LinePlace& place, const FieldGrammar& grammar);

// The media of such a value, in order; none when it holds codes. Throws as VisionCodes does.
std::vector<data::MediaRequest> MediaOf(const Json& value, const std::string& field,
                                        const LinePlace& place, const FieldGrammar& grammar);

// Calls visit(value, field) for every value of the object that names media, not codes: values of
// vision fields, and the parts of a chat.
void ForEachMedia(Json& object,
                  const std::function<void(Json& value, const std::string& field)>& visit);

// Throws Error(kCorruptData) naming the field when the text holds a NUL character.
void RequireNoNul(const std::string& text, const std::string& where, const std::string& field);

}  // namespace lwm::data
