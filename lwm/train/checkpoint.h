#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/train/adamw.h"
#include "lwm/train/sharded_weights.h"

namespace lwm::train {

// RUN/checkpoints/step_N, a model directory that also holds the state of training:
//   config.json, tokenizer.model, vqgan/   as given
//   model.safetensors                  f32 masters under Hugging Face names; when large, several
//                                      files with model.safetensors.index.json
//   optimizer/rank_R.safetensors       AdamW's moments that rank R owns, "NAME|SLICE|exp_avg" and
//                                      "...|exp_avg_sq" (SLICE: tensor_slice.h)
//   trainer.json                       step, optimizer steps, mesh, trainer's state, data cursors
//   MANIFEST.json                      size and xxh3 of every file
// Written to checkpoints/.writing_step_N by all ranks (a shared file system), fsynced, renamed.

// The state of the training loop apart from weights and moments.
struct TrainerState {
  int64_t step = 0;  // optimizer steps done; names the directory
  Json trainer;      // the loop's own: tokens, schedule, seed ...; the same on every rank
  // Position in this rank's data. Saved for each data rank (mesh.data_rank()); the ranks of one
  // tp x sp group agree on it.
  Json data_cursor;
};

struct CheckpointOptions {
  // Newest checkpoints that stay, the one being written counted; >= 1. Those whose manifest or
  // sizes are wrong do not count.
  int64_t keep = 2;
  Json config;                                  // written as config.json
  int64_t model_file_bytes = int64_t{1} << 30;  // from there on the weights take several files
  std::map<std::string, std::filesystem::path> extra_files;  // name there -> file or folder copied
  std::function<void(const std::string&)> warn;  // on rank 0: why RUN/model was not moved
};

// Saves; returns the checkpoint's directory. If any rank fails (disk full: kResourceExhausted; a
// master that is NaN or infinite: kCorruptData) every rank throws the same error, the unfinished
// folder is removed and older checkpoints are as they were. Once the new one is complete, RUN/model
// is pointed to it, then older ones beyond options.keep are deleted. Collective. Defined in
// checkpoint_save.cc.
std::filesystem::path SaveCheckpoint(const std::filesystem::path& run_folder,
                                     const CheckpointOptions& options, const TrainerState& state,
                                     ShardedWeights& weights, AdamW& optimizer);

// Fills masters and moments bit for bit, whatever the mesh they were saved on, and returns the
// state. data_cursors: one when all data ranks of the saved run agreed, then it is everyone's
// `state.data_cursor`; else one for each of them, and `state.data_cursor` is this rank's, or null
// when the number of data ranks has changed. Throws Error(kCorruptData) or Error(kNotFound) naming
// the file and tensor, Error(kInvalidArgument) when the model differs. Collective. Defined in
// checkpoint_load.cc.
struct LoadedCheckpoint {
  TrainerState state;
  std::vector<Json> data_cursors;
  dist::MeshShape mesh;  // the saved run's
};
LoadedCheckpoint LoadCheckpoint(const std::filesystem::path& folder, ShardedWeights& weights,
                                AdamW& optimizer);

}  // namespace lwm::train
