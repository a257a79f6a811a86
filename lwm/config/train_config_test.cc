#include "lwm/config/train_config.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::config {
namespace {

constexpr char kRecipe[] = R"(
[model]
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 2
num_attention_heads = 4
[data]
train = ["a.txt", "b/*.txt"]
train_tokenizer_vocab = 300
row_tokens = 128
[train]
run_folder = "runs/x"
steps = 5
rows_per_step = 4
)";

std::string MessageOf(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  try {
    ParseTrainConfig(toml, "r.toml", overrides);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "no error";
}

TEST(TrainConfigTest, FieldListIsFrozen) {
  const std::vector<std::string> expected = {"model.init",
                                             "model.replace_tokenizer",
                                             "model.vocab_size",
                                             "model.vision_vocab_size",
                                             "model.hidden_size",
                                             "model.intermediate_size",
                                             "model.num_hidden_layers",
                                             "model.num_attention_heads",
                                             "model.num_key_value_heads",
                                             "model.head_dim",
                                             "model.max_position_embeddings",
                                             "model.rope_theta",
                                             "model.rms_norm_eps",
                                             "model.tie_word_embeddings",
                                             "model.initializer",
                                             "model.initializer_range",
                                             "data.train",
                                             "data.weights",
                                             "data.source",
                                             "data.fields",
                                             "data.min_document_tokens",
                                             "data.max_document_tokens",
                                             "data.max_frames",
                                             "data.skip_bad_lines",
                                             "data.allow_changed",
                                             "data.cache",
                                             "data.vqgan",
                                             "data.vqgan_dtype",
                                             "data.code_cache",
                                             "data.frame_size",
                                             "data.encode_ahead",
                                             "data.codes_per_frame",
                                             "data.codebook_size",
                                             "data.held_out",
                                             "data.held_out_fraction",
                                             "data.held_out_rows",
                                             "data.tokenizer",
                                             "data.train_tokenizer_vocab",
                                             "data.packing",
                                             "data.loss",
                                             "data.row_tokens",
                                             "parallel.mesh",
                                             "train.run_folder",
                                             "train.steps",
                                             "train.seed",
                                             "train.dtype",
                                             "train.log_every",
                                             "train.eval_every",
                                             "train.checkpoint_every",
                                             "train.checkpoint_keep",
                                             "train.max_minutes",
                                             "train.rows_per_step",
                                             "train.tokens_per_step",
                                             "train.micro_rows",
                                             "train.residual_dtype",
                                             "train.ffn_slice_tokens",
                                             "train.keep_mib",
                                             "train.sample_prompt",
                                             "train.sample_every",
                                             "train.sample_tokens",
                                             "train.sample_temperature",
                                             "train.memory_gib",
                                             "pictures.prompts",
                                             "pictures.pairs",
                                             "pictures.caption_key",
                                             "pictures.picture_key",
                                             "pictures.pairs_count",
                                             "pictures.every",
                                             "pictures.columns",
                                             "pictures.scale",
                                             "pictures.temperature",
                                             "pictures.top_k",
                                             "optimizer.lr",
                                             "optimizer.min_lr",
                                             "optimizer.schedule",
                                             "optimizer.warmup_steps",
                                             "optimizer.beta1",
                                             "optimizer.beta2",
                                             "optimizer.eps",
                                             "optimizer.weight_decay",
                                             "optimizer.clip_norm",
                                             "optimizer.init_lr",
                                             "optimizer.decay_steps",
                                             "optimizer.no_decay",
                                             "optimizer.accumulate"};
  EXPECT_EQ(TrainConfigKeys(), expected);
}

TEST(TrainConfigTest, FieldListOfSourcesIsFrozen) {
  std::vector<std::string> keys;
  SourceTable().ForEachField(
      [&](const char* name, auto&, const Limits&, const char*) { keys.emplace_back(name); });
  EXPECT_EQ(keys, (std::vector<std::string>{"paths", "share", "fields", "order", "drop_text",
                                            "line_weights", "prepend_text", "max_frames",
                                            "min_document_tokens", "max_document_tokens"}));
}

// The recipe without data.train, with what stands after its sections.
std::string WithSources(const std::string& sources) {
  std::string recipe = kRecipe;
  const std::string train = "train = [\"a.txt\", \"b/*.txt\"]\n";
  recipe.replace(recipe.find(train), train.size(), "");
  return recipe + sources;
}

TEST(TrainConfigTest, SourcesAreTablesOfTheirOwn) {
  const TrainConfig config = ParseTrainConfig(WithSources(R"(
[[data.source]]
paths = ["clips.jsonl"]
share = 0.84
fields = ["[caption],video_vision", "[video_vision],caption"]
order = "epoch"
drop_text = 0.1
[[data.source]]
paths = "books/*.txt"
share = 0.16
)"),
                                              "r.toml", {"data.max_frames=8"});
  ASSERT_EQ(config.data.source.size(), 2u);
  EXPECT_EQ(config.data.source[0].fields.size(), 2u);
  EXPECT_EQ(config.data.source[0].order, "epoch");
  EXPECT_EQ(config.data.source[0].drop_text, 0.1);
  EXPECT_EQ(config.data.source[1].share, 0.16);
  EXPECT_EQ(config.data.TrainPaths(), (std::vector<std::string>{"clips.jsonl", "books/*.txt"}));
  const Json json = TrainConfigToJson(config);
  EXPECT_EQ(json["data"]["source"][1]["paths"][0], "books/*.txt");
  EXPECT_EQ(json["data"]["source"][1].size(), 10u);
}

TEST(TrainConfigTest, ErrorsInSourcesNameTheirNumberAndKey) {
  const auto message = [](const std::string& lines) {
    return MessageOf(WithSources("[[data.source]]\npaths = \"a\"\n[[data.source]]\n" + lines));
  };
  EXPECT_EQ(message("paths = \"b\"\ndrop_txt = 0.1"),
            "r.toml:14: data.source[1]: unknown key 'drop_txt'; did you mean 'drop_text'?");
  EXPECT_EQ(message("paths = \"b\"\ndrop_text = 2"),
            "r.toml:14: data.source[1].drop_text: want 0 to 1, got 2");
  EXPECT_EQ(message("share = 1"), "data.source[1].paths is missing");
  EXPECT_EQ(message("paths = \"b\"\nshare = 0"), "data.source[1].share is 0: leave the source out");
  EXPECT_EQ(MessageOf(std::string(kRecipe) + "[[data.source]]\npaths = \"a\"\n"),
            "data.source and data.train exclude each other: give one");
  EXPECT_EQ(MessageOf(kRecipe, {"data.source=3"}),
            "--set data.source=3: data.source[0]: want a table, got 3");
}

TEST(TrainConfigTest, KeysOfTheVqganAndOfCodesExcludeEachOther) {
  EXPECT_EQ(MessageOf(kRecipe, {"data.frame_size=64"}),
            "data.frame_size is for data.vqgan, which is missing");
  EXPECT_NE(MessageOf(kRecipe, {"data.vqgan=m", "data.codebook_size=64"}).find("leave them out"),
            std::string::npos);
}

TEST(TrainConfigTest, RecipeAndOverridesFillTheFields) {
  const TrainConfig config =
      ParseTrainConfig(kRecipe, "r.toml",
                       {"train.steps=9", "optimizer.lr=1e-3", "optimizer.schedule=constant",
                        "data.train=c.txt", "parallel.mesh=1,1,1,2", "train.sample_prompt=42",
                        "model.tie_word_embeddings=true", "optimizer.no_decay=[\"norm\"]"});
  EXPECT_EQ(config.train.steps, 9);
  EXPECT_EQ(config.optimizer.lr, 1e-3);
  EXPECT_EQ(config.optimizer.schedule, "constant");
  EXPECT_EQ(config.data.train, std::vector<std::string>{"c.txt"});
  EXPECT_EQ(config.parallel.mesh, "1,1,1,2");
  EXPECT_EQ(config.train.sample_prompt, "42");
  EXPECT_TRUE(config.model.tie_word_embeddings);
  EXPECT_EQ(config.optimizer.no_decay, std::vector<std::string>{"norm"});
  EXPECT_EQ(config.RowsPerBatch(), 4);
}

TEST(TrainConfigTest, JsonDumpReadsBackTheSame) {
  const Json json = TrainConfigToJson(ParseTrainConfig(kRecipe, "r.toml", {}));
  std::vector<std::string> overrides;
  for (const auto& [section, fields] : json.items())
    for (const auto& [name, value] : fields.items())
      overrides.push_back(section + "." + name + "=" + value.dump());
  EXPECT_EQ(TrainConfigToJson(ParseTrainConfig("", "none", overrides)), json);
}

TEST(TrainConfigTest, UnknownNamesAreRefusedWithTheNearestKnown) {
  EXPECT_EQ(MessageOf("[train]\nstep = 3\n"),
            "r.toml:2: unknown key in [train]: 'step'; did you mean 'steps'?");
  EXPECT_EQ(MessageOf("[optimiser]\nlr = 3\n"),
            "r.toml:1: unknown section 'optimiser'; did you mean 'optimizer'?");
  EXPECT_EQ(MessageOf("steps = 3\n"),
            "r.toml:1: unknown section 'steps'; did you mean train.steps?");
  EXPECT_EQ(MessageOf(kRecipe, {"train.seeed=1"}),
            "--set train.seeed=1: unknown key in [train]: 'seeed'; did you mean 'seed'?");
}

TEST(TrainConfigTest, WrongTypesAndRangesNameTheKey) {
  EXPECT_EQ(MessageOf("[train]\nsteps = \"many\"\n"),
            "r.toml:2: train.steps: want a whole number, got \"many\"");
  EXPECT_EQ(MessageOf("[train]\nsteps = 2.5\n"),
            "r.toml:2: train.steps: want a whole number, got 2.5");
  EXPECT_EQ(MessageOf("[train]\n\nmicro_rows = 0\n"),
            "r.toml:3: train.micro_rows: want at least 1, got 0");
  EXPECT_EQ(MessageOf("[data]\nheld_out_fraction = 0.7\n"),
            "r.toml:2: data.held_out_fraction: want 0 to 0.5, got 0.7");
  EXPECT_EQ(MessageOf("[optimizer]\nlr = nan\n"),
            "r.toml:2: optimizer.lr: want a finite number, got nan");
  EXPECT_EQ(MessageOf("[optimizer]\neps = 0\n"),  // 0 / 0 where no gradient has been
            "r.toml:2: optimizer.eps: want at least 1e-30, got 0");
  EXPECT_EQ(MessageOf("[data]\npacking = \"msked\"\n"),
            "r.toml:2: data.packing: want one of masked, concatenate, pad, got \"msked\"");
  EXPECT_EQ(MessageOf("[data]\ntrain = [\"a\", 3]\n"),
            "r.toml:2: data.train: want a string, got 3");
  EXPECT_EQ(MessageOf("train = 3\n"), "r.toml:1: 'train' is a section: write [train]");
  EXPECT_EQ(MessageOf(kRecipe, {"trainsteps"}),
            "--set trainsteps: want section.key=value, as in --set train.steps=100");
}

TEST(TrainConfigTest, ContradictionsAreRefused) {
  EXPECT_NE(MessageOf(kRecipe, {"train.tokens_per_step=512"}).find("give one of train.rows_per"),
            std::string::npos);
  EXPECT_NE(MessageOf(kRecipe, {"train.rows_per_step=0", "train.tokens_per_step=500"})
                .find("no multiple of data.row_tokens"),
            std::string::npos);
  EXPECT_NE(MessageOf(kRecipe, {"data.tokenizer=x"}).find("exclude each other"), std::string::npos);
  EXPECT_EQ(MessageOf(kRecipe, {"optimizer.lr=1e-4", "optimizer.min_lr=1e-3"}),
            "optimizer.min_lr = 0.001 is above optimizer.lr = 0.0001");
  EXPECT_EQ(MessageOf(kRecipe, {"pictures.prompts=apple"}),
            "[pictures] needs data.vqgan, which turns codes into images");
  EXPECT_NE(MessageOf(kRecipe, {"data.weights=[1.0]"}).find("one weight for each"),
            std::string::npos);
  EXPECT_EQ(MessageOf(kRecipe, {"data.weights=[1, 0]"}),
            "data.weights[1] is 0: leave b/*.txt out of data.train");
  EXPECT_NE(MessageOf(kRecipe, {"train.run_folder="}).find("train.run_folder is missing"),
            std::string::npos);
  EXPECT_EQ(ParseTrainConfig(kRecipe, "r", {"train.rows_per_step=0", "train.tokens_per_step=512"})
                .RowsPerBatch(),
            4);
}

TEST(TrainConfigTest, NothingAsAPartOfNamesDoesNotSwitchWeightDecayOff) {
  for (const char* text : {"optimizer.no_decay=", "optimizer.no_decay=[\"norm\", \"\"]"})
    EXPECT_NE(MessageOf(kRecipe, {text}).find("optimizer.no_decay holds \"\""), std::string::npos)
        << text;
  EXPECT_TRUE(ParseTrainConfig(kRecipe, "r", {"optimizer.no_decay=[]"}).optimizer.no_decay.empty());
}

TEST(TrainConfigTest, ModelComesFromSizesAndTheTokenizer) {
  const ModelConfig model =
      ResolveModelConfig(ParseTrainConfig(kRecipe, "r", {"model.rope_theta=5e5"}), nullptr, 300);
  EXPECT_EQ(model.vocab_size, 300);
  EXPECT_EQ(model.head_dim, 16);
  EXPECT_EQ(model.num_key_value_heads, 4);
  EXPECT_EQ(model.max_position_embeddings, 128);
  EXPECT_EQ(model.rope_theta, 5e5);
}

TEST(TrainConfigTest, ModelThatContradictsTokenizerOrRowsIsRefused) {
  const auto message = [](const std::vector<std::string>& overrides, int64_t vocab) {
    try {
      ResolveModelConfig(ParseTrainConfig(kRecipe, "r", overrides), nullptr, vocab);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message({"model.vocab_size=512"}, 300), "no error");
  EXPECT_NE(message({"model.vocab_size=299"}, 300).find("has 300 ids but"), std::string::npos);
  EXPECT_NE(message({"model.vocab_size=1024"}, 300).find("has 300 ids but"), std::string::npos);
  EXPECT_NE(message({"model.max_position_embeddings=100"}, 300).find("longer than the model's"),
            std::string::npos);
  EXPECT_NE(message({"model.hidden_size=0"}, 300).find("model.hidden_size is missing"),
            std::string::npos);
  EXPECT_NE(message({"model.hidden_size=66"}, 300).find("no multiple of"), std::string::npos);
}

TEST(TrainConfigTest, ModelDirectoryIsExtendedNotContradicted) {
  ModelConfig init = ResolveModelConfig(ParseTrainConfig(kRecipe, "r", {}), nullptr, 300);
  init.rope_theta = 7;
  const auto resolve = [&](const std::vector<std::string>& overrides) {
    std::vector<std::string> all = {"model.init=somewhere", "data.train_tokenizer_vocab=0"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    return ResolveModelConfig(ParseTrainConfig(kRecipe, "r", all), &init, 300);
  };
  EXPECT_EQ(resolve({}).rope_theta, 7);
  const ModelConfig longer =
      resolve({"data.row_tokens=512", "model.max_position_embeddings=512", "model.rope_theta=9"});
  EXPECT_EQ(longer.rope_theta, 9);
  EXPECT_EQ(longer.max_position_embeddings, 512);
  EXPECT_EQ(resolve({"model.vision_vocab_size=40"}).vision_vocab_size, 40);
  EXPECT_ERROR(resolve({"data.row_tokens=512"}), kInvalidArgument);
  EXPECT_ERROR(resolve({"model.tie_word_embeddings=true"}), kInvalidArgument);
  try {
    resolve({"model.hidden_size=128"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "model.hidden_size = 128 but somewhere has 64: leave it out");
  }
}

TEST(TrainConfigTest, HelpShowsEveryKey) {
  const std::string help = TrainConfigHelp();
  for (const std::string& key : TrainConfigKeys())
    EXPECT_NE(help.find("  " + key.substr(key.find('.') + 1) + " = "), std::string::npos) << key;
}

}  // namespace
}  // namespace lwm::config
