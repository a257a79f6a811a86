#include "lwm/jinja/arguments.h"

#include <algorithm>

#include "lwm/jinja/failure.h"

namespace lwm::jinja {

void Arguments::Accept(std::initializer_list<const char*> names) {
  if (positional_.size() > names.size())
    Fail(callee_, " takes ", names.size(), " arguments, not ", positional_.size());
  for (auto& [name, value] : named_) {
    const auto* found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) Fail(callee_, " has no argument ", name, " in chat templates");
    const auto index = static_cast<size_t>(found - names.begin());
    if (positional_.size() <= index) positional_.resize(index + 1);
    positional_[index] = std::move(value);
  }
  named_.clear();
}

bool Arguments::Has(size_t index) const {
  return index < positional_.size() && !positional_[index].is_undefined();
}

const Value& Arguments::At(size_t index) const {
  static const Value absent;
  return index < positional_.size() ? positional_[index] : absent;
}

const Text& Arguments::TextAt(size_t index) const {
  const Text* text = At(index).text();
  if (!text) Fail(callee_, " wants a string, not ", At(index).kind());
  return *text;
}

int64_t Arguments::WholeAt(size_t index, int64_t otherwise) const {
  if (!Has(index) || At(index).is_none()) return otherwise;
  if (!At(index).is_whole()) Fail(callee_, " wants an integer, not ", At(index).kind());
  return At(index).whole();
}

Arguments Arguments::Rest(std::string callee, size_t count) const {
  const auto begin =
      positional_.begin() + static_cast<std::ptrdiff_t>(std::min(count, positional_.size()));
  return {std::move(callee), std::vector<Value>(begin, positional_.end()), named_};
}

}  // namespace lwm::jinja
