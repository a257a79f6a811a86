#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/dist/communicator.h"

namespace lwm::dist {
namespace {

// A receive that was posted before its message.
struct PostedReceive {
  std::span<std::byte> data;
  bool done = false;
};

class SelfReceive : public Request::State {
 public:
  explicit SelfReceive(std::shared_ptr<PostedReceive> posted) : posted_(std::move(posted)) {}
  bool Test() override { return posted_->done; }
  void Wait() override {
    // Nobody else can send it: waiting would last for ever.
    LWM_CHECK(posted_->done, "a group of one waits for a message that it did not send");
  }

 private:
  std::shared_ptr<PostedReceive> posted_;
};

void CopyBytes(std::span<const std::byte> from, std::span<std::byte> to) {
  LWM_CHECK(from.size() == to.size(), "message of ", from.size(), " bytes into ", to.size());
  if (!from.empty()) std::memmove(to.data(), from.data(), from.size());
}

// Messages to itself match by tag in order, as with MPI. A send copies at once, into the oldest
// receive posted for its tag or into a queue, so it never blocks.
class SelfCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  bool same_instructions() const override { return true; }

  Request StartSend(std::span<const std::byte> data, int to, int tag) override {
    LWM_CHECK(to == 0, "send to rank ", to, " of 1");
    auto& posted = posted_[tag];
    if (posted.empty()) {
      unexpected_[tag].emplace_back(data.begin(), data.end());
    } else {
      CopyBytes(data, posted.front()->data);
      posted.front()->done = true;
      posted.pop_front();
    }
    return {};
  }

  Request StartReceive(std::span<std::byte> data, int from, int tag) override {
    LWM_CHECK(from == 0, "receive from rank ", from, " of 1");
    auto& messages = unexpected_[tag];
    if (!messages.empty()) {
      CopyBytes(messages.front(), data);
      messages.pop_front();
      return {};
    }
    auto posted = std::make_shared<PostedReceive>(PostedReceive{data});
    posted_[tag].push_back(posted);
    return Request(std::make_unique<SelfReceive>(posted));
  }

  Request StartAllGather(std::span<const std::byte> send, std::span<std::byte> receive) override {
    CopyBytes(send, receive);
    return {};
  }
  Request StartReduceScatterSum(std::span<const float> send, std::span<float> receive) override {
    CopyBytes(std::as_bytes(send), std::as_writable_bytes(receive));
    return {};
  }

  void AllReduceSum(std::span<float>) override {}
  void AllReduceSum(std::span<double>) override {}
  void AllReduceMax(std::span<double>) override {}
  void Broadcast(std::span<std::byte>, int root) override {
    LWM_CHECK(root == 0, "broadcast from rank ", root, " of 1");
  }
  void Barrier() override {}
  std::unique_ptr<Communicator> Split(int) override { return MakeSelfCommunicator(); }

 private:
  std::map<int, std::deque<std::vector<std::byte>>> unexpected_;      // by tag
  std::map<int, std::deque<std::shared_ptr<PostedReceive>>> posted_;  // by tag
};

}  // namespace

std::unique_ptr<Communicator> MakeSelfCommunicator() {
  return std::make_unique<SelfCommunicator>();
}

}  // namespace lwm::dist
