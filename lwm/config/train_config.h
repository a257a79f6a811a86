#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/config/fields.h"
#include "lwm/config/model_config.h"
#include "lwm/config/training_sections.h"

namespace lwm::config {

// Everything a training run needs, one struct per TOML section. The ForEachField list of a section
// is the only list of its fields: TOML, --set, help, JSON and the frozen-list test come from it.

struct ModelSection {
  std::string init;
  bool replace_tokenizer = false;
  int64_t vocab_size = 0;
  int64_t vision_vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rope_theta = 0;
  double rms_norm_eps = 0;
  bool tie_word_embeddings = false;
  std::string initializer = "normal";
  double initializer_range = 0.02;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("init", init, Limits(),
          "model directory to start from; empty: random weights of the sizes below");
    field("replace_tokenizer", replace_tokenizer, Limits(),
          "give init another tokenizer than its own, though its rows mean other texts then");
    field("vocab_size", vocab_size, AtLeast(0), "text vocabulary; 0: the tokenizer's");
    field("vision_vocab_size", vision_vocab_size, AtLeast(0), "image codes; 0: text only");
    field("hidden_size", hidden_size, AtLeast(0), "model width");
    field("intermediate_size", intermediate_size, AtLeast(0), "feed-forward width");
    field("num_hidden_layers", num_hidden_layers, AtLeast(0), "layers");
    field("num_attention_heads", num_attention_heads, AtLeast(0), "query heads");
    field("num_key_value_heads", num_key_value_heads, AtLeast(0),
          "key and value heads; 0: as query heads");
    field("head_dim", head_dim, AtLeast(0), "width of a head; 0: hidden_size / heads");
    field("max_position_embeddings", max_position_embeddings, AtLeast(0),
          "longest context; 0: init's, else data.row_tokens");
    field("rope_theta", rope_theta, AtLeast(0), "rotary base; 0: init's, else 10000");
    field("rms_norm_eps", rms_norm_eps, AtLeast(0), "epsilon of the norms; 0: init's, else 1e-6");
    field("tie_word_embeddings", tie_word_embeddings, Limits(), "one table for input and output");
    field("initializer", initializer, OneOf({"normal", "scaled"}),
          "normal: every matrix has std initializer_range; scaled: matrices 1 / sqrt(hidden_size), "
          "o and down a further 1 / sqrt(2 layers)");
    field("initializer_range", initializer_range, Between(0, 10),
          "std of random tables and heads (and matrices)");
  }
};

// One of the sources that a mixture is made of: [[data.source]].
struct SourceTable {
  std::vector<std::string> paths;
  double share = 1;
  std::vector<std::string> fields;
  std::string order = "line";
  double drop_text = 0;
  bool line_weights = false;
  std::string prepend_text;
  int64_t max_frames = 0;
  int64_t min_document_tokens = 0;
  int64_t max_document_tokens = 0;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("paths", paths, Limits(), "text or JSONL files, folders or globs");
    field("share", share, AtLeast(0), "of the tokens, relative to the other sources");
    field("fields", fields, Limits(),
          "field grammar of JSONL lines without their own; a list: alternatives");
    field("order", order, OneOf({"line", "epoch"}),
          "of alternatives, take one by the line's number (as published) or draw anew each epoch");
    field("drop_text", drop_text, Between(0, 1),
          "chance that texts before learned images are left out, for guidance");
    field("line_weights", line_weights, Limits(),
          "a line's \"weight\" is how often an epoch shows it, on average");
    field("prepend_text", prepend_text, Limits(), "put before the first field if that is text");
    field("max_frames", max_frames, AtLeast(0), "frames of a video that are kept; 0: data's");
    field("min_document_tokens", min_document_tokens, AtLeast(0),
          "shorter text files are left out; 0: data's");
    field("max_document_tokens", max_document_tokens, AtLeast(0),
          "longer text files are left out; 0: data's");
  }
};

struct DataSection {
  std::vector<std::string> train;
  std::vector<double> weights;
  std::vector<SourceTable> source;
  std::vector<std::string> fields;
  int64_t min_document_tokens = 0;
  int64_t max_document_tokens = 0;
  int64_t max_frames = 0;
  bool skip_bad_lines = false;
  bool allow_changed = false;
  std::string cache;
  std::string vqgan;
  Dtype vqgan_dtype = Dtype::kF32;
  std::string code_cache;
  int64_t frame_size = 0;
  bool encode_ahead = true;
  int64_t codes_per_frame = 0;
  int64_t codebook_size = 0;
  std::vector<std::string> held_out;
  double held_out_fraction = 0;
  int64_t held_out_rows = 8;
  std::string tokenizer;
  int64_t train_tokenizer_vocab = 0;
  std::string packing = "masked";
  std::string loss = "auto";
  int64_t row_tokens = 2048;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("train", train, Limits(), "text or JSONL files, or globs, to train on");
    field("weights", weights, AtLeast(0), "share of rows of each entry of train; empty: by size");
    field("source", source, Limits(), "instead of train: tables of their own, [[data.source]]");
    field("fields", fields, Limits(),
          "field grammar of JSONL lines without their own; a list: alternatives");
    field("min_document_tokens", min_document_tokens, AtLeast(0),
          "shorter text files are left out");
    field("max_document_tokens", max_document_tokens, AtLeast(0),
          "longer text files are left out; 0: no limit");
    field("max_frames", max_frames, AtLeast(0), "frames of a video that are kept, evenly; 0: all");
    field("skip_bad_lines", skip_bad_lines, Limits(),
          "skip and count JSONL lines that are no example");
    field("allow_changed", allow_changed, Limits(),
          "on resume go on with other data than the run's so far, from its beginning");
    field("cache", cache, Limits(), "folder for token files; empty: cache in the run folder");
    field("vqgan", vqgan, Limits(), "model directory of the VQGAN that encodes images and videos");
    field("vqgan_dtype", vqgan_dtype, OneOf({"f32", "bf16"}), "of its arithmetic");
    field("code_cache", code_cache, Limits(),
          "folder for their codes; empty: code_cache in the run folder");
    field("frame_size", frame_size, AtLeast(0), "side of a frame, pixels; 0: the VQGAN's");
    field("encode_ahead", encode_ahead, Limits(),
          "encode all media before the first step, shared by the ranks");
    field("codes_per_frame", codes_per_frame, AtLeast(0),
          "of codes in the files; 0: the VQGAN's, else 256");
    field("codebook_size", codebook_size, AtLeast(0),
          "of codes in the files; 0: the VQGAN's, else 8192");
    field("held_out", held_out, Limits(), "files or globs that are only evaluated on");
    field("held_out_fraction", held_out_fraction, Between(0, 0.5),
          "part of the training documents held out instead");
    field("held_out_rows", held_out_rows, AtLeast(1), "most rows in an evaluation");
    field("tokenizer", tokenizer, Limits(), "tokenizer.model; empty: the one in model.init");
    field("train_tokenizer_vocab", train_tokenizer_vocab, AtLeast(0),
          "train a tokenizer of this size on the training files first; 0: use tokenizer");
    field("packing", packing, OneOf({"masked", "concatenate", "pad"}),
          "masked: documents packed, each sees itself only; concatenate: one stream; pad: one "
          "document a row");
    field("loss", loss, OneOf({"auto", "example", "row"}),
          "what counts one in the loss: an example or a row; auto: row for concatenate, else "
          "example");
    field("row_tokens", row_tokens, Between(2, 1 << 30), "tokens of a row over all its ranks");
  }

  // Every entry of train, or of all sources.
  std::vector<std::string> TrainPaths() const;
};

struct ParallelSection {
  std::string mesh = "1,1,1,-1";

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("mesh", mesh, Limits(), "ranks as dp,fsdp,tp,sp; -1 takes what is left");
  }
};

struct TrainSection : LoopSection {
  int64_t rows_per_step = 0;
  int64_t tokens_per_step = 0;
  int64_t micro_rows = 1;
  Dtype residual_dtype = Dtype::kBF16;
  int64_t ffn_slice_tokens = 2048;
  int64_t keep_mib = 512;
  std::string sample_prompt;
  int64_t sample_every = 0;
  int64_t sample_tokens = 120;
  double sample_temperature = 0.8;
  double memory_gib = 0;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    LoopSection::ForEachField(field);
    field("rows_per_step", rows_per_step, AtLeast(0),
          "rows of the global batch, all ranks together");
    field("tokens_per_step", tokens_per_step, AtLeast(0),
          "the same in tokens: give one of the two");
    field("micro_rows", micro_rows, AtLeast(1), "rows that a rank computes at once");
    field("residual_dtype", residual_dtype, OneOf({"bf16", "f32"}),
          "of the stream between layers, kept for backward; f32 with dtype f32");
    field("ffn_slice_tokens", ffn_slice_tokens, AtLeast(1), "tokens of a feed-forward slice");
    field("keep_mib", keep_mib, Between(0, 1 << 20),
          "memory for activations that backward then need not compute again, MiB a rank");
    field("sample_prompt", sample_prompt, Limits(),
          "text that samples continue; empty: no samples");
    field("sample_every", sample_every, AtLeast(0), "steps between samples; 0: at the end only");
    field("sample_tokens", sample_tokens, AtLeast(1), "new tokens of a sample");
    field("sample_temperature", sample_temperature, AtLeast(0), "of samples; 0: greedy");
    field("memory_gib", memory_gib, AtLeast(0),
          "memory the run may use on a machine; 0: what is free");
  }

  // The dtype of the stream between layers, as used.
  Dtype StreamDtype() const { return dtype == Dtype::kF32 ? dtype : residual_dtype; }
};

struct PicturesSection {
  std::vector<std::string> prompts;
  std::string pairs;
  std::string caption_key = "caption";
  std::string picture_key = "image_vision";
  int64_t pairs_count = 48;
  int64_t every = 0;
  int64_t columns = 8;
  double scale = 1;
  double temperature = 0.5;
  int64_t top_k = 0;

  bool is_used() const { return !prompts.empty() || !pairs.empty(); }

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("prompts", prompts, Limits(), "texts that are drawn into RUN/pictures/step_N.png");
    field("pairs", pairs, Limits(),
          "JSONL of images and captions whose knowledge is measured into eval.jsonl");
    field("caption_key", caption_key, Limits(), "of the lines of pairs: the caption");
    field("picture_key", picture_key, Limits(), "of the lines of pairs: the image's path");
    field("pairs_count", pairs_count, AtLeast(2),
          "pairs measured, spread evenly over the file; the last step describes all");
    field("every", every, AtLeast(0), "steps between images; 0: at the end only");
    field("columns", columns, AtLeast(1), "of the grid of prompts");
    field("scale", scale, Limits(), "guidance; 1: none");
    field("temperature", temperature, AtLeast(0), "of the codes; 0: greedy");
    field("top_k", top_k, AtLeast(0), "draw from the k likeliest codes; 0: all");
  }
};

struct OptimizerSection : AdamWSection {
  double init_lr = 0;
  int64_t decay_steps = 0;
  std::vector<std::string> no_decay;
  int64_t accumulate = 1;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    AdamWSection::ForEachField(field);
    field("init_lr", init_lr, AtLeast(0), "learning rate of the first step of the warm-up");
    field("decay_steps", decay_steps, AtLeast(0),
          "step at which min_lr is reached, warm-up included; 0: train.steps");
    field("no_decay", no_decay, Limits(),
          "parts of tensor names without weight decay, such as norm, embed");
    field("accumulate", accumulate, AtLeast(1),
          "global batches whose mean gradient makes one step");
  }
};

struct TrainConfig {
  ModelSection model;
  DataSection data;
  ParallelSection parallel;
  TrainSection train;
  PicturesSection pictures;
  OptimizerSection optimizer;

  template <class Visitor>
  void ForEachSection(Visitor&& section) {
    section("model", model, "the decoder, fields named as in Hugging Face");
    section("data", data, "what it reads");
    section("parallel", parallel, "how ranks share the work");
    section("train", train, "the loop");
    section("pictures", pictures, "what a model of text and vision shows as it learns");
    section("optimizer", optimizer, "AdamW and its schedule");
  }

  // Rows of one global batch: rows_per_step, or tokens_per_step / row_tokens.
  int64_t RowsPerBatch() const;
  // Checks fields against each other: throws Error(kInvalidArgument) naming the keys that clash.
  void Validate() const;
};

// Reads a recipe over the defaults, then the overrides ("section.key=value") in order, then
// validates. Throws Error(kInvalidArgument) naming file, line and key: an unknown section or key
// (with the nearest known one), a wrong type, a value out of range.
TrainConfig ReadTrainConfig(const std::filesystem::path& recipe,
                            const std::vector<std::string>& overrides);
TrainConfig ParseTrainConfig(std::string_view toml, const std::string& where,
                             const std::vector<std::string>& overrides);

// The model that the recipe means, for a tokenizer of `tokenizer_vocab` ids (0: not known, no
// check): the given sizes, or `init` (model.init's config, nullptr without one) with the context
// length and theta replaced. The model's vocabulary may exceed the tokenizer's by padding to a
// multiple of 512, no more. Throws Error(kInvalidArgument) naming the keys that contradict each
// other, the checkpoint or the tokenizer, and a row longer than the model's maximum.
ModelConfig ResolveModelConfig(const TrainConfig& config, const ModelConfig* init,
                               int64_t tokenizer_vocab);

// All settings, {"section": {"key": value}}; reading it back gives the same config.
Json TrainConfigToJson(const TrainConfig& config);

// "section.key" of every field in order; a test freezes this list.
std::vector<std::string> TrainConfigKeys();

// The help text: every section, key, default and meaning; and the same as a recipe with comments,
// which reads back as the defaults.
std::string TrainConfigHelp();
std::string TrainConfigTemplate();

}  // namespace lwm::config
