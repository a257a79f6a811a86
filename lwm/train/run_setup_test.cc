#include "lwm/train/run_setup.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/testing/byte_tokenizer.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_vqgan.h"

namespace lwm::train {
namespace {

// Without BOS, and with an EOS that is no model's default.
class OtherTokenizer : public testing_support::ByteTokenizer {
 public:
  int32_t bos_id() const override { return -1; }
  int32_t eos_id() const override { return 258; }
};

config::ModelConfig Prepared(const std::vector<std::string>& overrides) {
  const config::TrainConfig config = config::ParseTrainConfig(R"(
[model]
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 1
num_attention_heads = 2
[data]
train = ["book.txt"]
tokenizer = "tokenizer.json"
row_tokens = 64
[train]
run_folder = "run"
steps = 1
rows_per_step = 1
)",
                                                              "recipe", overrides);
  return PrepareModel(config, {}, OtherTokenizer());
}

TEST(RunSetupTest, TheModelKnowsTheFramesItIsTrainedOn) {
  const testing_support::TemporaryFolder folder;
  testing_support::WriteSmallestVqgan(folder / "vqgan");  // 2 x 2 pixels a code, made for 8 x 8
  const std::string vqgan = "data.vqgan=" + (folder / "vqgan").string();
  const std::string vision = "model.vision_vocab_size=8448";
  EXPECT_EQ(Prepared({vision}).codes_per_frame, 0);
  EXPECT_EQ(Prepared({vision, "data.codes_per_frame=9"}).codes_per_frame, 9);
  EXPECT_EQ(Prepared({vision, vqgan}).codes_per_frame, 16);
  EXPECT_EQ(Prepared({vision, vqgan, "data.frame_size=12"}).codes_per_frame, 36);
  EXPECT_EQ(Prepared({"data.codes_per_frame=9"}).codes_per_frame, 0);
  EXPECT_ERROR(Prepared({vision, vqgan, "data.frame_size=13"}), kInvalidArgument);
}

TEST(RunSetupTest, TheModelEndsTextsAsItsTokenizerDoes) {
  const config::ModelConfig model = Prepared({});
  EXPECT_EQ(model.bos_token_id, -1);
  EXPECT_EQ(model.eos_token_id, 258);
  EXPECT_TRUE(model.more_eos_token_ids.empty());
}

}  // namespace
}  // namespace lwm::train
