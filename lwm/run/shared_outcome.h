#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/dist/communicator.h"

namespace lwm::run {

// The outcome of work that all ranks share: it has failed when it failed on any of them. A rank
// keeps its error and goes on to the next collective call; Agree then gives all ranks the same
// error, so that none waits for a peer that gave up.
class SharedOutcome {
 public:
  // Runs `work` unless something failed here before; keeps what it throws.
  void Try(const std::function<void()>& work);
  bool failed() const { return error_.has_value(); }
  // The error of the lowest rank that failed, the same on all ranks; nothing when none did.
  // Collective.
  std::optional<Error> Agree(dist::Communicator& ranks) const;

 private:
  std::optional<Error> error_;
};

// The texts of all ranks, on all ranks. Collective.
std::vector<std::string> GatherTexts(dist::Communicator& ranks, const std::string& text);

}  // namespace lwm::run
