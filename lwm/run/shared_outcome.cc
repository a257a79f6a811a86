#include "lwm/run/shared_outcome.h"

#include <algorithm>
#include <cstring>

namespace lwm::run {

void SharedOutcome::Try(const std::function<void()>& work) {
  if (error_) return;
  // Thrown again by every rank once they agree.
  try {
    work();
  } catch (const Error& error) {
    error_ = error;
  } catch (const std::exception& error) {
    error_ = Error(ErrorCode::kInternal, error.what());
  }
}

std::optional<Error> SharedOutcome::Agree(dist::Communicator& ranks) const {
  // One digit of the code, then the message; "" for success.
  const std::string mine = error_ ? static_cast<char>('0' + static_cast<int>(error_->code())) +
                                        std::string(error_->what())
                                  : "";
  for (const std::string& text : GatherTexts(ranks, mine))
    if (!text.empty()) return Error(static_cast<ErrorCode>(text[0] - '0'), text.substr(1));
  return std::nullopt;
}

std::vector<std::string> GatherTexts(dist::Communicator& ranks, const std::string& text) {
  // All-gather moves blocks of one size, so the longest text sets it.
  auto longest = static_cast<double>(text.size());
  ranks.AllReduceMax(std::span(&longest, 1));
  // Each rank's block: its length in 8 bytes, then the text.
  const size_t block = sizeof(uint64_t) + static_cast<size_t>(longest);
  std::vector<std::byte> send(block), all(block * static_cast<size_t>(ranks.size()));
  const uint64_t length = text.size();
  std::memcpy(send.data(), &length, sizeof length);
  std::memcpy(send.data() + sizeof length, text.data(), text.size());
  ranks.StartAllGather(send, all).Wait();
  std::vector<std::string> texts;
  for (size_t at = 0; at < all.size(); at += block) {
    uint64_t size = 0;
    std::memcpy(&size, all.data() + at, sizeof size);
    texts.emplace_back(reinterpret_cast<const char*>(all.data() + at + sizeof size), size);
  }
  return texts;
}

}  // namespace lwm::run
