#include "lwm/config/dtype.h"

#include <gtest/gtest.h>

#include "lwm/config/fields.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/message_of.h"

namespace lwm::config {
namespace {

TEST(DtypeTest, EveryNameReadsBackAndOthersAreRefused) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kF16}) {
    EXPECT_EQ(ParseDtype(NameOf(dtype)), dtype);
    EXPECT_EQ(Json(dtype), Json(NameOf(dtype)));
  }
  for (const char* name : {"", "F32", "float32", "f3"})
    EXPECT_ERROR(ParseDtype(name), kInvalidArgument) << name;
}

TEST(DtypeTest, AFieldTakesItsChoicesOnly) {
  Dtype dtype = Dtype::kF32;
  const Limits limits = OneOf({"bf16", "f32"});
  SetField("train.dtype", "bf16", limits, dtype);
  EXPECT_EQ(dtype, Dtype::kBF16);
  EXPECT_EQ(testing_support::MessageOf([&] { SetField("train.dtype", "f16", limits, dtype); },
                                       ErrorCode::kInvalidArgument),
            "train.dtype: want one of bf16, f32, got \"f16\"");
  EXPECT_ERROR(SetField("train.dtype", 16, limits, dtype), kInvalidArgument);
  EXPECT_EQ(dtype, Dtype::kBF16);
}

}  // namespace
}  // namespace lwm::config
