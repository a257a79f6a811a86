#include "lwm/dist/mesh.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::dist {
namespace {

std::string MessageOf(const std::string& text, int ranks) {
  try {
    ParseMeshShape(text, ranks);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "accepted";
}

TEST(MeshShapeTest, OneSizeIsInferredFromTheRanks) {
  const MeshShape shape = ParseMeshShape("1,2,-1,3", 12);
  EXPECT_EQ(shape.dp, 1);
  EXPECT_EQ(shape.fsdp, 2);
  EXPECT_EQ(shape.tp, 2);
  EXPECT_EQ(shape.sp, 3);
  EXPECT_EQ(ParseMeshShape("-1,1,1,1", 1).ranks(), 1);
}

TEST(MeshShapeTest, MisfitsSayWhatWouldFit) {
  EXPECT_NE(MessageOf("1,1,1,2", 1).find("mpirun -np 2"), std::string::npos);
  EXPECT_NE(MessageOf("1,3,1,-1", 4).find("multiple of 3"), std::string::npos);
  for (const char* wrong : {"", "1,1,1", "1,1,1,1,1", "1,,1,1", "1,1,1,x", "0,1,1,1", "-2,1,1,1",
                            "-1,-1,1,1", "1,1,1,1 ", "2000000000,2000000000,2000000000,4"}) {
    EXPECT_NE(MessageOf(wrong, 1).find("mesh"), std::string::npos) << wrong;
  }
}

TEST(MeshTest, OfOneRankIsAllGroupsOfOne) {
  const auto world = MakeSelfCommunicator();
  const Mesh mesh(*world, MeshShape{});
  for (const Communicator* group :
       {&mesh.dp(), &mesh.tp(), &mesh.sp(), &mesh.shard(), &mesh.data()})
    EXPECT_EQ(group->size(), 1);
  EXPECT_EQ(mesh.data_size(), 1);
  EXPECT_ERROR(Mesh(*world, MeshShape{1, 1, 1, 2}), kInvalidArgument);
}

TEST(SelfCommunicatorTest, MessagesToItselfMatchByTagInOrder) {
  const auto self = MakeSelfCommunicator();
  const std::byte one[] = {std::byte{1}}, two[] = {std::byte{2}}, three[] = {std::byte{3}};
  std::byte got[3] = {};
  Request early = self->StartReceive(std::span(got, 1), 0, 5);
  EXPECT_FALSE(early.Test());
  self->StartSend(three, 0, 6);
  self->StartSend(one, 0, 5);
  self->StartSend(two, 0, 5);
  EXPECT_TRUE(early.Test());
  self->StartReceive(std::span(got + 1, 1), 0, 5).Wait();
  self->StartReceive(std::span(got + 2, 1), 0, 6).Wait();
  EXPECT_EQ(got[0], one[0]);
  EXPECT_EQ(got[1], two[0]);
  EXPECT_EQ(got[2], three[0]);
}

TEST(SelfCommunicatorTest, CollectivesAreCopies) {
  const auto self = MakeSelfCommunicator();
  const std::vector<float> send = {1, 2, 3};
  std::vector<float> receive(3);
  self->StartReduceScatterSum(send, receive).Wait();
  EXPECT_EQ(receive, send);
  self->AllReduceSum(std::span(receive));
  EXPECT_EQ(receive, send);
  receive.assign(3, 0);
  self->StartAllGather(std::as_bytes(std::span(send)), std::as_writable_bytes(std::span(receive)))
      .Wait();
  EXPECT_EQ(receive, send);
}

}  // namespace
}  // namespace lwm::dist
