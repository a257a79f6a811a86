#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "lwm/base/error.h"
#include "lwm/io/safetensors.h"
#include "lwm/train/checkpoint.h"

namespace lwm::train {
namespace fs = std::filesystem;
namespace {

// The safetensors files right inside a folder, by name.
std::vector<fs::path> TensorFiles(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  LWM_REQUIRE_AS(ErrorCode::kNotFound, !files.empty(), folder.string(),
                 " holds no .safetensors file");
  return files;
}

// The f32 values of one tensor in a mapped file.
std::span<const float> Values(const io::SafetensorsFile& file, const std::string& name) {
  const auto bytes = file.bytes(name);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                 file.info(name).dtype == io::DType::kF32 &&
                     reinterpret_cast<uintptr_t>(bytes.data()) % alignof(float) == 0,
                 file.path().string(), ": ", name, " is not aligned f32");
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

void LoadMasters(const fs::path& folder, ShardedWeights& weights) {
  // Mapped until Load has copied this rank's part.
  std::vector<std::unique_ptr<io::SafetensorsFile>> files;
  std::unordered_map<std::string, const io::SafetensorsFile*> file_of;
  for (const fs::path& path : TensorFiles(folder)) {
    files.push_back(std::make_unique<io::SafetensorsFile>(path));
    for (const io::TensorInfo& info : files.back()->infos())
      file_of[info.name] = files.back().get();
  }
  weights.Load([&](const model::TensorSpec& spec) {
    const auto file = file_of.find(spec.name);
    LWM_REQUIRE_AS(ErrorCode::kNotFound, file != file_of.end(), folder.string(), ": no tensor ",
                   spec.name);
    const auto values = Values(*file->second, spec.name);
    // Only read; from_blob has no const form.
    return at::from_blob(const_cast<float*>(values.data()), file->second->info(spec.name).shape,
                         at::kFloat);
  });
}

// This rank's moments of one tensor.
struct OwnedPiece {
  const ShardPiece* piece;
  AdamW::Moments* moments;
};

// Reads moments saved on any mesh: from every optimizer file it copies the elements that the saved
// slice shares with the slice this rank owns now. Files are mapped, so only those pages are read.
class MomentLoader {
 public:
  MomentLoader(ShardedWeights& weights, AdamW& optimizer) {
    for (int64_t group = weights.first_group(); group < weights.end_group(); ++group)
      for (const ShardPiece& piece : weights.shard(group).pieces)
        owned_.emplace(piece.spec.name, OwnedPiece{&piece, &optimizer.moments(group)});
  }

  void Read(const io::SafetensorsFile& file) {
    for (const io::TensorInfo& info : file.infos()) {
      const size_t first = info.name.find('|'), last = info.name.rfind('|');
      const std::string where = file.path().string() + ": " + info.name;
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, first != last, where, " is not NAME|SLICE|MOMENT");
      const auto owned = owned_.find(info.name.substr(0, first));
      if (owned == owned_.end()) continue;
      const OwnedPiece& own = owned->second;
      const std::string moment = info.name.substr(last + 1);
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, moment == "exp_avg" || moment == "exp_avg_sq", where,
                     ": unknown moment");
      const TensorSlice slice =
          ParseSlice(info.name.substr(first + 1, last - first - 1), own.piece->spec);
      const auto values = Values(file, info.name);
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, static_cast<int64_t>(values.size()) == slice.size(),
                     where, ": ", values.size(), " values for its slice");
      const at::Tensor& target = moment == "exp_avg" ? own.moments->first_n : own.moments->second_n;
      copied_[info.name.substr(0, first)] +=
          CopyOverlap(slice, values.data(), own.piece->slice,
                      target.mutable_data_ptr<float>() + own.piece->offset);
    }
  }

  void RequireComplete(const fs::path& folder) const {
    for (const auto& [name, own] : owned_) {
      // Saved slices cover each tensor once, so a full count of both moments means that none is
      // missing.
      const auto copied = copied_.find(name);
      const int64_t values = copied == copied_.end() ? 0 : copied->second;
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, values == 2 * own.piece->slice.size(),
                     folder.string(), ": moments of ", name, " are incomplete (", values, " of ",
                     2 * own.piece->slice.size(), " values)");
    }
  }

 private:
  std::map<std::string, OwnedPiece> owned_;
  std::unordered_map<std::string, int64_t> copied_;
};

void LoadMoments(const fs::path& folder, ShardedWeights& weights, AdamW& optimizer) {
  MomentLoader loader(weights, optimizer);
  for (const fs::path& path : TensorFiles(folder)) loader.Read(io::SafetensorsFile(path));
  loader.RequireComplete(folder);
}

void RequireSameModel(const config::ModelConfig& saved, const config::ModelConfig& wanted,
                      const std::string& where) {
  const auto require = [&](const char* field, int64_t was, int64_t is) {
    LWM_REQUIRE(was == is, where, ": ", field, " is ", was, ", the run's model has ", is,
                "; use the run's own settings or a new run folder");
  };
  require("vocab_size", saved.vocab_size, wanted.vocab_size);
  require("vision_vocab_size", saved.vision_vocab_size, wanted.vision_vocab_size);
  require("hidden_size", saved.hidden_size, wanted.hidden_size);
  require("intermediate_size", saved.intermediate_size, wanted.intermediate_size);
  require("num_hidden_layers", saved.num_hidden_layers, wanted.num_hidden_layers);
  require("num_attention_heads", saved.num_attention_heads, wanted.num_attention_heads);
  require("num_key_value_heads", saved.num_key_value_heads, wanted.num_key_value_heads);
  require("head_dim", saved.head_dim, wanted.head_dim);
  require("tie_word_embeddings", saved.tie_word_embeddings, wanted.tie_word_embeddings);
}

}  // namespace

LoadedCheckpoint LoadCheckpoint(const fs::path& folder, ShardedWeights& weights, AdamW& optimizer) {
  // First: on another model every tensor below would fail with a message about its shape.
  RequireSameModel(config::ReadModelConfig(folder / "config.json"), weights.config(),
                   (folder / "config.json").string());
  const fs::path trainer_path = folder / "trainer.json";
  const Json trainer = ReadJsonFile(trainer_path);
  const std::string where = trainer_path.string();
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, JsonGet<int>(trainer, "format", where) == 1, where,
                 ": format is not 1");
  LoadedCheckpoint loaded;
  loaded.state.step = JsonGet<int64_t>(trainer, "step", where);
  loaded.state.trainer = JsonGet<Json>(trainer, "trainer", where);
  loaded.data_cursors = JsonGet<std::vector<Json>>(trainer, "data_cursors", where);
  const auto mesh = JsonGet<std::vector<int>>(trainer, "mesh", where);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, mesh.size() == 4, where, ": mesh is not four sizes");
  loaded.mesh = {mesh[0], mesh[1], mesh[2], mesh[3]};
  const dist::Mesh& now = weights.mesh();
  // One cursor each belongs to the data rank of that number, which exists only while their number
  // is unchanged.
  if (loaded.data_cursors.size() == 1)
    loaded.state.data_cursor = loaded.data_cursors[0];
  else if (loaded.data_cursors.size() == static_cast<size_t>(now.data_size()))
    loaded.state.data_cursor = loaded.data_cursors[static_cast<size_t>(now.data_rank())];
  optimizer.set_steps(JsonGet<int64_t>(trainer, "optimizer_steps", where));
  LoadMasters(folder, weights);
  LoadMoments(folder / "optimizer", weights, optimizer);
  now.world().Barrier();
  return loaded;
}

}  // namespace lwm::train
