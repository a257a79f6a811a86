#pragma once

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "lwm/jinja/value.h"

namespace lwm::jinja {

// The arguments of a call, a filter or a test.
class Arguments {
 public:
  using Named = std::vector<std::pair<std::string, Value>>;

  Arguments(std::string callee, std::vector<Value> positional, Named named = {})
      : callee_(std::move(callee)), positional_(std::move(positional)), named_(std::move(named)) {}

  // Gives the arguments these names, in order. Throws Failure naming a named one that is none of
  // them, or that there are too many.
  void Accept(std::initializer_list<const char*> names);

  // By position; an argument that is not given, or undefined, is absent.
  bool Has(size_t index) const;
  const Value& At(size_t index) const;  // undefined when absent
  const Text& TextAt(size_t index) const;
  int64_t WholeAt(size_t index, int64_t otherwise) const;
  bool FlagAt(size_t index, bool otherwise) const {
    return Has(index) ? At(index).IsTrue() : otherwise;
  }

  // All but the first `count` positional ones, for another callee.
  Arguments Rest(std::string callee, size_t count) const;

  const std::string& callee() const { return callee_; }
  const std::vector<Value>& positional() const { return positional_; }
  const Named& named() const { return named_; }

 private:
  std::string callee_;
  std::vector<Value> positional_;
  Named named_;
};

}  // namespace lwm::jinja
