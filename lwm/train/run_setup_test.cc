#include "lwm/train/run_setup.h"

#include <gtest/gtest.h>

#include "tests/byte_tokenizer.h"

namespace lwm::train {
namespace {

// Without BOS, and with an EOS that is no model's default.
class OtherTokenizer : public testing_support::ByteTokenizer {
 public:
  int32_t bos_id() const override { return -1; }
  int32_t eos_id() const override { return 258; }
};

TEST(RunSetupTest, TheModelEndsTextsAsItsTokenizerDoes) {
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
                                                              "recipe", {});
  const config::ModelConfig model = PrepareModel(config, {}, OtherTokenizer());
  EXPECT_EQ(model.bos_token_id, -1);
  EXPECT_EQ(model.eos_token_id, 258);
}

}  // namespace
}  // namespace lwm::train
