#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/dist/communicator.h"

namespace lwm::train {

// Work that every rank does a part of and that has failed for all when one rank's part failed:
// ranks collect what goes wrong and agree on it later, so that none waits for a peer that gave up.
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

}  // namespace lwm::train
