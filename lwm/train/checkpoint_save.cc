#include <ATen/ATen.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/checkpoint/finite.h"
#include "lwm/io/safetensors.h"
#include "lwm/run/checkpoint_paths.h"
#include "lwm/run/manifest.h"
#include "lwm/run/shared_outcome.h"
#include "lwm/train/checkpoint.h"

namespace lwm::train {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void ThrowFolderError(const fs::path& path, const char* what, int error) {
  throw Error(error == ENOSPC || error == EDQUOT ? ErrorCode::kResourceExhausted
                                                 : ErrorCode::kInvalidArgument,
              Cat("cannot ", what, " ", path.string(), ": ", std::strerror(error)));
}

void MakeFolder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) ThrowFolderError(path, "create", error.value());
}

// A synced file; the folder around it becomes visible only later, so it needs no rename of its own.
void WriteText(const fs::path& path, const std::string& text) {
  OutputFile file(path);
  file.Write(text);
  file.Finish();
}

std::span<const std::byte> Bytes(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

// One file of weights and the groups in it.
struct ModelFile {
  std::string name;
  std::vector<int64_t> groups;
  std::vector<io::TensorInfo> infos;
  int64_t bytes = 0;
};

std::vector<ModelFile> PlanModelFiles(const ShardedWeights& weights, int64_t file_bytes) {
  std::vector<ModelFile> files;
  for (int64_t group = weights.first_group(); group < weights.end_group(); ++group) {
    std::vector<io::TensorInfo> infos;
    int64_t bytes = 0;
    for (const model::TensorSpec& spec : weights.GroupSpecs(group)) {
      infos.push_back({spec.name, io::DType::kF32, spec.shape});
      bytes += static_cast<int64_t>(io::TensorBytes(infos.back()));
    }
    if (files.empty() || files.back().bytes + bytes > file_bytes) files.emplace_back();
    ModelFile& file = files.back();
    file.groups.push_back(group);
    file.infos.insert(file.infos.end(), infos.begin(), infos.end());
    file.bytes += bytes;
  }
  for (size_t i = 0; i < files.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, files.size());
    files[i].name = files.size() == 1 ? "model.safetensors" : name;
  }
  return files;
}

std::string IndexText(const std::vector<ModelFile>& files) {
  Json weight_map = Json::object();
  int64_t total = 0;
  for (const ModelFile& file : files) {
    for (const io::TensorInfo& info : file.infos) weight_map[info.name] = file.name;
    total += file.bytes;
  }
  return Json{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}}.dump(1);
}

// How a checkpoint becomes valid. Rank 0 makes .writing_step_N. The ranks of one replica (dp_rank
// 0) write their files there, fsync and hash them. When all have succeeded, rank 0 writes
// MANIFEST.json last, fsyncs the folders and renames the folder to step_N. FindLatestValid accepts
// a folder of that name whose files have the sizes and hashes of its manifest, nothing else. A kill
//   before the rename leaves .writing_step_N, which the next start or save removes;
//   after it leaves a valid step_N, RUN/model on the checkpoint before, and perhaps one checkpoint
//   too many: the next start sets the link, the next save deletes.
// No rank throws between two collective calls, since its peers would wait for it: errors go into
// outcome_, and all ranks throw at the next AgreeOrAbandon.

// One save in progress: this rank's part of it.
class Save {
 public:
  Save(const fs::path& run_folder, const CheckpointOptions& options, const TrainerState& state,
       ShardedWeights& weights, AdamW& optimizer)
      : run_folder_(run_folder),
        options_(options),
        state_(state),
        weights_(weights),
        optimizer_(optimizer),
        mesh_(weights.mesh()),
        world_(mesh_.world()),
        first_(world_.rank() == 0),
        name_(Cat(run::kStepPrefix, state.step)),
        writing_(run::CheckpointsFolder(run_folder) / Cat(run::kWritingPrefix, name_)),
        final_(run::CheckpointsFolder(run_folder) / name_) {}

  fs::path Run() {
    outcome_.Try([&] { RequireFiniteMasters(); });
    if (first_) outcome_.Try([&] { Begin(); });
    AgreeOrAbandon();
    const auto cursors = run::GatherTexts(world_, state_.data_cursor.dump());
    if (first_) outcome_.Try([&] { WriteSmallFiles(cursors); });
    // Replicas along dp hold the same state: the first one's ranks write it.
    if (mesh_.dp_rank() == 0) {
      WriteModelFiles();
      outcome_.Try([&] { WriteMoments(); });
    }
    Json entries = Json::object();
    outcome_.Try([&] {
      // Read back from the file, so that the hash is of the bytes that a later load gets.
      for (const std::string& name : written_) entries[name] = run::ManifestEntry(writing_ / name);
    });
    AgreeOrAbandon();
    const auto all_entries = run::GatherTexts(world_, entries.dump());
    if (first_) outcome_.Try([&] { Publish(all_entries); });
    AgreeOrAbandon();
    // Published. What fails from here on costs a warning, not the checkpoint.
    if (!first_) return final_;
    const std::string problem = run::KeepNewest(run_folder_, state_.step, options_.keep);
    if (!problem.empty() && options_.warn) options_.warn(problem);
    return final_;
  }

 private:
  void Begin() {
    MakeFolder(run::CheckpointsFolder(run_folder_));
    // A crash must not lose the directory entry `checkpoints`, or all checkpoints go with it.
    SyncPath(run_folder_);
    run::RemoveLeftovers(run_folder_);
    MakeFolder(writing_ / "optimizer");
  }

  // Loading refuses NaN and Inf: such a checkpoint would only push out good ones.
  void RequireFiniteMasters() {
    for (int64_t group = weights_.first_group(); group < weights_.end_group(); ++group)
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, checkpoint::AllFinite(weights_.shard(group).master_n),
                     "the weights hold values that are not finite (NaN or Inf): training diverged");
  }

  // All ranks come here together, so the removal is over before any of them throws.
  void AgreeOrAbandon() {
    const std::optional<Error> error = outcome_.Agree(world_);
    if (!error) return;
    std::error_code ignored;
    if (first_) fs::remove_all(writing_, ignored);
    world_.Barrier();
    throw Error(error->code(), Cat("checkpoint of step ", state_.step, ": ", error->what(),
                                   "; earlier checkpoints are untouched"));
  }

  void Write(const std::string& name, const std::string& text) {
    WriteText(writing_ / name, text);
    written_.push_back(name);
  }

  void WriteSmallFiles(const std::vector<std::string>& cursors) {
    const dist::MeshShape& shape = mesh_.shape();
    Json data_cursors = Json::array();
    for (int data_rank = 0; data_rank < mesh_.data_size(); ++data_rank)
      data_cursors.push_back(
          ParseJson(cursors[static_cast<size_t>(data_rank * shape.tp * shape.sp)], "data cursor"));
    if (std::all_of(data_cursors.begin(), data_cursors.end(),
                    [&](const Json& cursor) { return cursor == data_cursors[0]; }))
      data_cursors = Json::array({data_cursors[0]});
    const Json trainer = {{"format", 1},
                          {"step", state_.step},
                          {"optimizer_steps", optimizer_.steps()},
                          {"mesh", {shape.dp, shape.fsdp, shape.tp, shape.sp}},
                          {"trainer", state_.trainer},
                          {"data_cursors", data_cursors}};
    Write("trainer.json", trainer.dump());
    Write("config.json", options_.config.dump(2));
    for (const auto& [name, path] : options_.extra_files) CopyExtraFile(name, path);
  }

  // A file, or the files of a folder (not of folders inside). Bytes are copied through a map.
  void CopyExtraFile(const std::string& name, const fs::path& path) {
    if (!fs::is_directory(path)) {
      const MappedFile file(path);
      OutputFile output(writing_ / name);
      output.Write(file.bytes().data(), file.bytes().size());
      output.Finish();
      written_.push_back(name);
      return;
    }
    MakeFolder(writing_ / name);
    for (const auto& entry : fs::directory_iterator(path))
      if (entry.is_regular_file() &&
          entry.path().filename() != run::kManifestName)  // of another folder
        CopyExtraFile(Cat(name, "/", entry.path().filename().string()), entry.path());
    SyncPath(writing_ / name);
  }

  // File f is written by rank f modulo the ranks of one replica, so that the load of writing and
  // hashing is shared.
  void WriteModelFiles() {
    const auto files = PlanModelFiles(weights_, options_.model_file_bytes);
    const dist::MeshShape& shape = mesh_.shape();
    const size_t owners = static_cast<size_t>(shape.fsdp * shape.tp * shape.sp);
    for (size_t f = 0; f < files.size(); ++f) {
      const ModelFile& file = files[f];
      const int owner = static_cast<int>(f % owners);
      std::optional<io::SafetensorsWriter> writer;
      if (world_.rank() == owner)
        outcome_.Try([&] { writer.emplace(writing_ / file.name, file.infos); });
      for (const int64_t group : file.groups)
        // A failed owner goes on receiving: its peers must not wait for it.
        weights_.VisitGroup(group, owner,
                            [&](const model::TensorSpec& spec, const at::Tensor& whole) {
                              outcome_.Try([&] { writer->Write(spec.name, Bytes(whole)); });
                            });
      if (world_.rank() != owner) continue;
      outcome_.Try([&] { writer->Finish(); });
      written_.push_back(file.name);
    }
    if (first_ && files.size() > 1)
      outcome_.Try([&] { Write("model.safetensors.index.json", IndexText(files)); });
  }

  void WriteMoments() {
    std::vector<io::TensorInfo> infos;
    std::vector<at::Tensor> values;
    for (int64_t group = weights_.first_group(); group < weights_.end_group(); ++group) {
      const AdamW::Moments& moments = optimizer_.moments(group);
      for (const ShardPiece& piece : weights_.shard(group).pieces) {
        // Tensors that tp does not split are equal on all its ranks; saved once, so that slices
        // cover every tensor once and a load can count.
        if (mesh_.tp_rank() > 0 && piece.slice.split == TensorSlice::Split::kNone) continue;
        const std::string prefix = Cat(piece.spec.name, "|", SliceText(piece.slice), "|");
        const int64_t size = piece.slice.size();
        infos.push_back({prefix + "exp_avg", io::DType::kF32, {size}});
        values.push_back(moments.first_n.narrow(0, piece.offset, size));
        infos.push_back({prefix + "exp_avg_sq", io::DType::kF32, {size}});
        values.push_back(moments.second_n.narrow(0, piece.offset, size));
      }
    }
    const std::string name = Cat("optimizer/rank_", world_.rank(), ".safetensors");
    io::SafetensorsWriter writer(writing_ / name, infos);
    for (size_t i = 0; i < infos.size(); ++i) writer.Write(infos[i].name, Bytes(values[i]));
    writer.Finish();
    written_.push_back(name);
  }

  void Publish(const std::vector<std::string>& all_entries) {
    Json files = Json::object();
    for (const std::string& entries : all_entries) files.update(ParseJson(entries, "manifest"));
    // Last of the files: with a manifest the folder claims to be complete.
    WriteText(writing_ / run::kManifestName, run::ManifestText(files));
    SyncPath(writing_ / "optimizer");
    SyncPath(writing_);
    run::PublishCheckpoint(writing_, final_);
  }

  const fs::path& run_folder_;
  const CheckpointOptions& options_;
  const TrainerState& state_;
  ShardedWeights& weights_;
  AdamW& optimizer_;
  dist::Mesh& mesh_;
  dist::Communicator& world_;
  const bool first_;
  const std::string name_;
  const fs::path writing_, final_;
  run::SharedOutcome outcome_;
  std::vector<std::string> written_;
};

}  // namespace

fs::path SaveCheckpoint(const fs::path& run_folder, const CheckpointOptions& options,
                        const TrainerState& state, ShardedWeights& weights, AdamW& optimizer) {
  return Save(run_folder, options, state, weights, optimizer).Run();
}

}  // namespace lwm::train
