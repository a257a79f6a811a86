// lwm encode: images and videos as codes in JSONL, ahead of training.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "command.h"
#include "commands.h"
#include "flags/media_flags.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/format.h"
#include "lwm/base/json.h"
#include "lwm/base/text.h"
#include "lwm/data/documents.h"
#include "lwm/data/vision_field.h"
#include "lwm/io/atomic_output.h"
#include "lwm/io/media_names.h"
#include "lwm/vision/media_frames.h"
#include "progress.h"

namespace lwm::app {
namespace {
namespace fs = std::filesystem;

struct EncodeFlags {
  RunFlags run;
  MediaFlags media;
  std::vector<std::string> inputs;
  std::string output;
  double frames_per_second = 0;
  int64_t frames = 0;
  bool skip_bad = false;
};

// A line of a JSONL file, or an image or video.
struct Item {
  const data::JsonlFile* file = nullptr;
  int64_t line = 0;
  fs::path path;  // of the JSONL file or the media
};

// Everything that is to be encoded, in order.
class Inputs {
 public:
  explicit Inputs(const std::vector<std::string>& inputs) {
    for (const std::string& input : inputs) {
      LWM_REQUIRE_AS(ErrorCode::kNotFound, fs::exists(input), "cannot read ", input,
                     ": no such file or folder");
      if (fs::is_directory(input)) {
        AddFolder(input);
      } else if (data::HoldsJsonl(input)) {
        AddLines(input);
      } else {
        items_.push_back({.path = input});
      }
    }
    LWM_REQUIRE(!items_.empty(), "there is nothing to encode in ", inputs[0]);
  }

  const std::vector<Item>& items() const { return items_; }
  // Files of folders that are neither images nor videos by their names, or cannot be read.
  int64_t passed_over() const { return passed_over_; }

 private:
  void AddFolder(const fs::path& folder) {
    const vision::MediaFolder inside = vision::ListMedia(folder);
    for (const fs::path& path : inside.files) items_.push_back({.path = path});
    passed_over_ += static_cast<int64_t>(inside.skipped.size());
  }

  void AddLines(const fs::path& path) {
    files_.push_back(std::make_unique<data::JsonlFile>(path));
    const data::JsonlFile& file = *files_.back();
    for (int64_t line = 0; line < file.lines(); ++line)
      if (!file.is_blank(line)) items_.push_back({&file, line, path});
  }

  std::vector<std::unique_ptr<data::JsonlFile>> files_;
  std::vector<Item> items_;
  int64_t passed_over_ = 0;
};

// Turns items into lines of codes.
class ItemEncoder {
 public:
  explicit ItemEncoder(const EncodeFlags& flags) : flags_(flags) {
    data::UseMedia(grammar_,
                   OpenMedia(flags.media, fs::path(flags.output).parent_path() / "code_cache"));
  }

  Json Encode(const Item& item) const {
    if (item.file) return EncodeLine(item);
    Json media = item.path.string();
    const std::vector<int32_t> code_n = Codes(media, "vision", PlaceOf(item));
    return {{"path", item.path.string()},
            {"frames", static_cast<int64_t>(code_n.size()) / grammar_.tokens_per_frame},
            {"vision", code_n}};
  }

  // The requests that Encode will make to the cache.
  std::vector<data::MediaRequest> MediaOf(const Item& item) const {
    std::vector<data::MediaRequest> requests;
    const auto add = [&](Json& media, const std::string& field, const data::LinePlace& place) {
      SetDefaults(media);
      const auto of_value = data::MediaOf(media, field, place, grammar_);
      requests.insert(requests.end(), of_value.begin(), of_value.end());
    };
    if (item.file) {
      Json object = item.file->Parse(item.line);
      data::ForEachMedia(
          object, [&](Json& value, const std::string& field) { add(value, field, PlaceOf(item)); });
    } else {
      Json media = item.path.string();
      add(media, "vision", PlaceOf(item));
    }
    return requests;
  }

  data::CodeCache& media() const { return *grammar_.media; }

 private:
  static data::LinePlace PlaceOf(const Item& item) {
    if (!item.file) return {.where = item.path.string()};
    return {.index = item.line,
            .where = item.file->where(item.line),
            .folder = item.path.parent_path()};
  }

  Json EncodeLine(const Item& item) const {
    const data::LinePlace place = PlaceOf(item);
    Json object = item.file->Parse(item.line);
    data::ForEachMedia(object, [&](Json& value, const std::string& field) {
      const bool is_part = field == "chat" || field == "messages";
      const auto type = is_part ? JsonGet<std::string>(value, "type", Cat(place.where, ": ", field))
                                : std::string();
      const std::vector<int32_t> code_n = Codes(value, field, place);
      value = is_part ? Json{{"type", type}, {"codes", code_n}} : Json(code_n);
    });
    return object;
  }

  // --fps and --frames are for videos that do not say how many frames they give.
  void SetDefaults(Json& media) const {
    if (media.is_array()) {
      for (Json& entry : media) SetDefaults(entry);
      return;
    }
    if (flags_.frames_per_second == 0 && flags_.frames == 0) return;
    Json object = media.is_string() ? Json{{"path", media}} : media;
    if (!object.contains("path") || !object.at("path").is_string() || object.contains("fps") ||
        object.contains("frames") || !io::IsVideoName(object.at("path").get<std::string>()))
      return;
    if (flags_.frames_per_second > 0) object["fps"] = flags_.frames_per_second;
    if (flags_.frames > 0) object["frames"] = flags_.frames;
    media = object;
  }

  std::vector<int32_t> Codes(Json& media, const std::string& field,
                             const data::LinePlace& place) const {
    SetDefaults(media);
    return data::VisionCodes(media, field, place, grammar_);
  }

  const EncodeFlags& flags_;
  data::FieldGrammar grammar_;
};

// The line, or why there is none.
std::optional<Json> TryEncode(const ItemEncoder& encoder, const Item& item, bool skip_bad,
                              std::string& reason) {
  try {
    return encoder.Encode(item);
  } catch (const Error& error) {
    if (!skip_bad || error.code() != ErrorCode::kCorruptData) throw;
    reason = error.what();
    return {};
  }
}

// Puts the media of some items into the cache; progress(part done, 0 to 1).
void FillCache(const EncodeFlags& flags, const std::vector<const Item*>& items,
               const ItemEncoder& encoder, const std::function<void(double)>& progress) {
  std::vector<data::MediaRequest> requests;
  bool failed = false;
  for (const Item* item : items) {
    try {
      const auto of_item = encoder.MediaOf(*item);
      requests.insert(requests.end(), of_item.begin(), of_item.end());
    } catch (const Error&) {
      failed = true;
    }
  }
  const auto count = static_cast<double>(requests.size());
  failed |= encoder.media().Fill(requests, [&](int64_t done) {
    if (count > 0) progress(static_cast<double>(done) / count);
  }) > 0;
  if (!failed || flags.skip_bad) return;
  for (const Item* item : items) encoder.Encode(*item);  // throws, naming file and line
}

// Fills the cache: every rank takes its part of the items. Progress of all of them is estimated
// from that of rank 0.
void EncodeAll(const EncodeFlags& flags, const Inputs& inputs, const ItemEncoder& encoder,
               dist::Communicator& world) {
  const auto& items = inputs.items();
  const auto size = static_cast<size_t>(world.size());
  const auto share = static_cast<double>((items.size() + size - 1) / size);  // of rank 0
  const double ranks = static_cast<double>(items.size()) / share;
  Progress progress("encoded", "frame");
  constexpr size_t kItemsAtOnce = 64;  // their frames share batches
  int64_t done = 0;
  for (size_t begin = static_cast<size_t>(world.rank()); begin < items.size();
       begin += kItemsAtOnce * size) {
    std::vector<const Item*> chunk;
    for (size_t i = begin; i < std::min(items.size(), begin + kItemsAtOnce * size); i += size)
      chunk.push_back(&items[i]);
    FillCache(flags, chunk, encoder, [&](double part) {
      if (world.rank() > 0) return;
      const double at = static_cast<double>(done) + part * static_cast<double>(chunk.size());
      const auto frames = static_cast<double>(encoder.media().counts().frames);
      progress.Update(std::llround(frames * ranks), at / share);
    });
    done += static_cast<int64_t>(chunk.size());
  }
  const auto mine = encoder.media().counts();
  double counts[] = {static_cast<double>(mine.frames), static_cast<double>(mine.encoded),
                     static_cast<double>(mine.found)};
  world.AllReduceSum(std::span<double>(counts));  // waits for all
  if (world.rank() == 0)
    progress.Finish(
        fmt::format("encoded {:.0f} frames of {:.0f} files in {}; {:.0f} were in the cache",
                    counts[0], counts[1], FormatDuration(progress.seconds()), counts[2]));
  encoder.media().Unload();
}

void WriteLines(const EncodeFlags& flags, const Inputs& inputs, const ItemEncoder& encoder) {
  io::AtomicOutput output(flags.output);
  int64_t skipped = 0;
  for (const Item& item : inputs.items()) {
    std::string reason;
    if (const auto line = TryEncode(encoder, item, flags.skip_bad, reason)) {
      output.file().Write(line->dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    } else {
      ++skipped;
      std::fprintf(stderr, "skipped %s\n", reason.c_str());
    }
  }
  const auto size = static_cast<int64_t>(inputs.items().size());
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, skipped < size, "none of ", size, " could be encoded; ",
                 flags.output, " was not written");
  output.Commit();
  std::fprintf(stderr, "wrote %s to %s, skipped %lld\n", CountOf(size - skipped, "line").c_str(),
               flags.output.c_str(), static_cast<long long>(skipped));
  if (inputs.passed_over() > 0)
    std::fprintf(stderr, "passed over %s: no images or videos by name\n",
                 CountOf(inputs.passed_over(), "file").c_str());
}

void RunEncode(EncodeFlags flags) {
  RunContext context(flags.run);
  flags.media.dtype = flags.run.dtype;
  // Fail now, not after hours of encoding.
  if (const auto folder = fs::path(flags.output).parent_path(); !folder.empty())
    fs::create_directories(folder);
  const Inputs inputs(flags.inputs);
  const ItemEncoder encoder(flags);
  EncodeAll(flags, inputs, encoder, context.world());
  if (context.is_root()) WriteLines(flags, inputs, encoder);
  context.world().Barrier();
}

}  // namespace

void AddEncode(CLI::App& command) {
  auto flags = std::make_shared<EncodeFlags>();
  flags->run.dtype = config::Dtype::kF32;
  command.add_option("--vqgan", flags->media.vqgan, "model directory of the VQGAN")->required();
  command
      .add_option("-i,--input", flags->inputs,
                  "JSONL whose vision fields name media, or images, videos, folders of them")
      ->required();
  command.add_option("-o,--output", flags->output, "the JSONL file with codes")->required();
  command.add_option("--code-cache", flags->media.cache,
                     "folder of what was encoded (default: code_cache beside --output)");
  command
      .add_option("--frame-size", flags->media.frame_size,
                  "side of a frame, pixels; 0: the VQGAN's")
      ->check(CLI::Range(0, 1 << 15))
      ->capture_default_str();
  command
      .add_option("--fps", flags->frames_per_second,
                  "frames taken of every second of a video that does not say itself; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--frames", flags->frames,
                  "most frames of such a video; without --fps spread evenly over it; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_flag("--skip-bad", flags->skip_bad,
                   "leave out lines and files that cannot be encoded, and count them");
  AddRunFlags(command, flags->run);
  AddExamples(command,
              "  lwm encode --vqgan models/vqgan --input captions.jsonl --output coded.jsonl\n"
              "  lwm encode --vqgan models/vqgan --input clips --fps 2 --output clips.jsonl\n"
              "A run that was stopped goes on where it was when it is started again.");
  command.callback([flags] { RunEncode(*flags); });
}

}  // namespace lwm::app
