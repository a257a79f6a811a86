#include "lwm/vision/frame_batches.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/plain_image.h"
#include "lwm/testing/tiny_vqgan.h"
#include "lwm/vision/frames.h"

namespace lwm::vision {
namespace {

class FrameBatchesTest : public testing::Test {
 protected:
  static Vqgan TinyVqgan() {
    const config::VqganConfig config = testing_support::SmallestVqganConfig();
    return Vqgan(config, RandomVqganWeights(config, 7), at::kFloat);
  }
  // `count` frames of different colours, then nothing.
  static NextFrame Colours(int64_t count) {
    return [count, i = int64_t{0}]() mutable -> std::optional<io::RgbImage> {
      if (i == count) return {};
      const auto shade = static_cast<uint8_t>(i++);
      return testing_support::PlainImage(8, 8, static_cast<uint8_t>(7 * shade), shade,
                                         static_cast<uint8_t>(255 - 3 * shade));
    };
  }
  // What one batch after the other gives.
  template <class Compute>
  static at::Tensor ByHand(const at::Tensor& x_N, const Compute& compute) {
    std::vector<at::Tensor> parts;
    for (int64_t begin = 0; begin < x_N.size(0); begin += 16)
      parts.push_back(compute(x_N.slice(0, begin, std::min(begin + 16, x_N.size(0)))));
    return at::cat(parts);
  }

  const Vqgan vqgan_ = TinyVqgan();
};

TEST_F(FrameBatchesTest, BatchesAreJoinedInOrder) {
  for (const int64_t count : {1, 16, 17, 37}) {
    const at::Tensor images = TensorOfFrames(TakeFrames(Colours(count), count));
    const at::Tensor codes = EncodeInBatches(vqgan_, images);
    EXPECT_TRUE(at::equal(
        codes, ByHand(images, [&](const at::Tensor& part) { return vqgan_.Encode(part); })));
    EXPECT_TRUE(at::equal(EncodeStream(vqgan_, Colours(count)), codes));
    const at::Tensor decoded = DecodeInBatches(vqgan_, codes);
    EXPECT_TRUE(at::equal(
        decoded, ByHand(codes, [&](const at::Tensor& part) { return vqgan_.Decode(part); })));
    EXPECT_TRUE(at::equal(DecodeFrames(vqgan_, codes.flatten(1)), decoded));
    EXPECT_EQ(decoded.size(0), count);
  }
}

TEST_F(FrameBatchesTest, NoImagesGiveNoCodesButAnEmptyStreamIsAnError) {
  EXPECT_EQ(EncodeInBatches(vqgan_, at::zeros({0, 8, 8, 3})).sizes(), (at::IntArrayRef{0, 4, 4}));
  EXPECT_EQ(DecodeFrames(vqgan_, at::zeros({0, 16}, at::kInt)).sizes(),
            (at::IntArrayRef{0, 8, 8, 3}));
  EXPECT_ERROR(EncodeStream(vqgan_, Colours(0)), kInvalidArgument);
}

TEST_F(FrameBatchesTest, AStreamIsNotAskedAgainAfterItsEnd) {
  for (const int64_t count : {2, 16, 17}) {
    int64_t calls = 0;
    const NextFrame next = [&]() -> std::optional<io::RgbImage> {
      if (calls++ == count) return {};
      return testing_support::PlainImage(8, 8, 1, 2, 3);
    };
    EXPECT_EQ(EncodeStream(vqgan_, next).size(0), count);
    EXPECT_EQ(calls, count + 1);
  }
}

TEST_F(FrameBatchesTest, AFaultOfTheStreamIsThrown) {
  int64_t left = 20;
  const NextFrame next = [&]() -> std::optional<io::RgbImage> {
    if (left-- == 0) throw Error(ErrorCode::kCorruptData, "torn");
    return testing_support::PlainImage(8, 8, 1, 2, 3);
  };
  EXPECT_ERROR(EncodeStream(vqgan_, next), kCorruptData);
}

TEST_F(FrameBatchesTest, TakenFramesEndWithTheStream) {
  const NextFrame next = Colours(5);
  EXPECT_EQ(TakeFrames(next, 3).size(), 3u);
  EXPECT_EQ(TakeFrames(next, 3).size(), 2u);
  EXPECT_TRUE(TakeFrames(next, 3).empty());
}

}  // namespace
}  // namespace lwm::vision
