#include "lwm/data/tokenizer_difference.h"

#include <gtest/gtest.h>

#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/testing/byte_pieces.h"
#include "lwm/testing/byte_tokenizer.h"

namespace lwm::data {
namespace {

std::unique_ptr<Tokenizer> WithPieces(const std::vector<std::string>& pieces) {
  return MakePieceTokenizer(testing_support::ByteAndOtherPieces(pieces), "test");
}

TEST(TokenizerDifferenceTest, SameTokensInAnotherFileAreTheSame) {
  class OtherFile : public testing_support::ByteTokenizer {
    std::string file_name() const override { return "other"; }
  };
  EXPECT_EQ(TokenizerDifference(OtherFile(), testing_support::ByteTokenizer()), "");
  EXPECT_EQ(TokenizerDifference(*WithPieces({"ab", "a", "b"}), *WithPieces({"ab", "a", "b"})), "");
}

TEST(TokenizerDifferenceTest, SizesTokensAndMergesAreCompared) {
  EXPECT_EQ(TokenizerDifference(*WithPieces({"ab", "a", "b"}), *WithPieces({"a", "b"})),
            "262 ids instead of 261");
  EXPECT_EQ(TokenizerDifference(*WithPieces({"ab", "a", "b"}), *WithPieces({"aa", "a", "b"})),
            "id 259 is \"ab\" instead of \"aa\"");
  class OtherMerges : public testing_support::ByteTokenizer {
    std::string file_name() const override { return "other"; }
    std::vector<int32_t> Encode(std::string_view text) const override {
      return std::vector<int32_t>(text.size(), 3);
    }
  };
  EXPECT_EQ(TokenizerDifference(OtherMerges(), testing_support::ByteTokenizer()),
            "it divides words differently");
}

}  // namespace
}  // namespace lwm::data
