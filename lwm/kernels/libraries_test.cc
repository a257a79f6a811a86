#include "lwm/kernels/libraries.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace lwm::kernels {
namespace {

TEST(LibrariesTest, NamesVersionAndInstructions) {
  EXPECT_TRUE(MatmulLibrary().starts_with("oneDNN ")) << MatmulLibrary();
  EXPECT_TRUE(VectorLibrary().starts_with("Highway ")) << VectorLibrary();
  for (const std::string& text : {MatmulLibrary(), VectorLibrary()}) {
    EXPECT_EQ(std::count(text.begin(), text.end(), '.') >= 2, true) << text;
    EXPECT_LT(text.find(", ") + 3, text.size()) << text;
  }
}

}  // namespace
}  // namespace lwm::kernels
