#include "lwm/io/unwrapped_source.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/note.h"

namespace lwm::io {
namespace {

constexpr std::string_view kWrappers[] = {
    "_orig_mod",   "module",         "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
    "_fpw_module", "_forward_module"};
constexpr std::string_view kAnchors[] = {"model.embed_tokens.weight", "quantize.embedding.weight"};
constexpr std::string_view kInnerTable = "embed_tokens.weight";

// Some tensors of another source under other names.
class RenamedSource final : public TensorSource {
 public:
  // names[i] is that of tensor i; empty: left out.
  RenamedSource(std::unique_ptr<TensorSource> source, const std::vector<std::string>& names)
      : TensorSource(source->where()), source_(std::move(source)) {
    std::vector<TensorInfo> infos;
    for (size_t i = 0; i < names.size(); ++i) {
      if (names[i].empty()) continue;
      infos.push_back(source_->infos()[i]);
      infos.back().name = names[i];
      index_of_.push_back(i);
    }
    SetInfos(std::move(infos));
  }

  std::string_view format() const override { return source_->format(); }
  std::string_view Encoding(size_t index) const override {
    return source_->Encoding(index_of_[index]);
  }
  uint64_t StoredBytes(size_t index) const override {
    return source_->StoredBytes(index_of_[index]);
  }
  void ReadRange(size_t index, uint64_t offset, std::span<std::byte> destination) const override {
    source_->ReadRange(index_of_[index], offset, destination);
  }
  std::span<const std::byte> View(size_t index) const override {
    return source_->View(index_of_[index]);
  }
  void Forget(size_t index) const override { source_->Forget(index_of_[index]); }

 private:
  std::unique_ptr<TensorSource> source_;
  std::vector<size_t> index_of_;
};

// The prefix of the names of the model's weights, found before an anchor; nothing when no or
// several prefixes are found.
std::optional<std::string> SharedPrefix(const std::vector<std::string>& names) {
  std::set<std::string> prefixes;
  for (const std::string& name : names)
    for (const std::string_view anchor : kAnchors)
      if (name.ends_with(anchor)) prefixes.insert(name.substr(0, name.size() - anchor.size()));
  // Several prefixes are several models in one file: which one is meant is not guessed.
  if (prefixes.size() != 1 || prefixes.begin()->empty()) return {};
  return prefixes.begin()->ends_with('.') ? std::optional(*prefixes.begin()) : std::nullopt;
}

bool IsTrainingState(const std::string& name) {
  return name.starts_with("optim") || name.starts_with("lr_sched") || name.starts_with("sched");
}

// The removed prefix, "" for none. Names of what is not the model's become empty.
std::string RemoveSharedPrefix(std::vector<std::string>& names) {
  const auto prefix = SharedPrefix(names);
  if (!prefix) return "";
  for (std::string& name : names) {
    if (name.starts_with(*prefix))
      name.erase(0, prefix->size());
    else if (IsTrainingState(name))
      name.clear();
  }
  return *prefix;
}

// True when it had to be done.
bool AddModelPrefix(std::vector<std::string>& names) {
  if (std::find(names.begin(), names.end(), kInnerTable) == names.end()) return false;
  for (std::string& name : names)
    if (!name.empty() && name != "lm_head.weight") name.insert(0, "model.");
  return true;
}

std::string Quoted(std::string_view prefix) { return Cat('"', prefix, '"'); }

// The wrappers that stand in the names, quoted.
std::string WrappersIn(const TensorSource& source) {
  std::string found;
  for (const std::string_view wrapper : kWrappers) {
    const std::string part = Cat(wrapper, '.');
    for (const TensorInfo& info : source.infos()) {
      if (!info.name.starts_with(part) && info.name.find('.' + part) == std::string::npos) continue;
      found += (found.empty() ? "" : ", ") + Quoted(part);
      break;
    }
  }
  return found;
}

}  // namespace

std::string WithoutWrappers(const std::string& name) {
  std::string kept;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = std::string_view(name).substr(begin, end - begin);
    const bool is_last = end == name.size();
    if (is_last ||
        std::find(std::begin(kWrappers), std::end(kWrappers), part) == std::end(kWrappers))
      kept += Cat(part, is_last ? "" : ".");
    begin = end + 1;
  }
  return kept;
}

std::unique_ptr<TensorSource> Unwrapped(std::unique_ptr<TensorSource> source) {
  if (source->format() != "safetensors" && source->format() != "torch") return source;
  std::vector<std::string> names;
  for (const TensorInfo& info : source->infos()) names.push_back(WithoutWrappers(info.name));
  std::string removed = WrappersIn(*source);
  if (const std::string prefix = RemoveSharedPrefix(names); !prefix.empty())
    removed += (removed.empty() ? "" : ", ") + Quoted(prefix);
  const bool added = AddModelPrefix(names);
  if (removed.empty() && !added) return source;
  std::string text = source->where() + ": ";
  if (!removed.empty()) text += "took the prefix " + removed + " off the names of its tensors";
  if (added) text += Cat(removed.empty() ? "" : " and ", "put \"model.\" before them");
  Note(text);
  return std::make_unique<RenamedSource>(std::move(source), names);
}

}  // namespace lwm::io
