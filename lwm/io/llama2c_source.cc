#include "lwm/io/llama2c_source.h"

#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/io/byte_reader.h"

namespace lwm::io {
namespace {

constexpr uint32_t kMagic = 0x616b3432;  // "ak42"
constexpr uint64_t kFirstHeaderBytes = 28, kVersionedHeaderBytes = 256;

struct Layout {
  Llama2cHeader header;
  std::vector<TensorInfo> infos;
  std::vector<uint64_t> offsets;
};

Llama2cHeader ReadHeader(std::span<const std::byte> file) {
  ByteReader in(file, "llama2.c header");
  Llama2cHeader header;
  header.versioned = in.Number<uint32_t>() == kMagic;
  if (header.versioned) {
    in.Require(in.Number<int32_t>() == 1, "only version 1 is supported");
  } else {
    in.Seek(0);
  }
  header.dim = in.Number<int32_t>();
  header.hidden_dim = in.Number<int32_t>();
  header.layers = in.Number<int32_t>();
  header.heads = in.Number<int32_t>();
  header.kv_heads = in.Number<int32_t>();
  header.vocab_size = in.Number<int32_t>();
  header.max_tokens = in.Number<int32_t>();
  // The first version marks a classifier of its own by a negative vocabulary.
  header.shared_classifier = header.versioned ? in.Number<uint8_t>() != 0 : header.vocab_size > 0;
  header.vocab_size = std::abs(header.vocab_size);
  return header;
}

// The first version has no magic number: a file is one if its header is plausible and its size fits
// exactly.
bool IsPlausible(const Llama2cHeader& h) {
  constexpr int64_t kMax = 1 << 24;
  for (const int64_t size :
       {h.dim, h.hidden_dim, h.layers, h.heads, h.kv_heads, h.vocab_size, h.max_tokens})
    if (size <= 0 || size > kMax) return false;
  return h.layers <= 4096 && h.dim % h.heads == 0 && h.heads % h.kv_heads == 0 &&
         h.dim / h.heads % 2 == 0;
}

std::vector<TensorInfo> TensorsInOrder(const Llama2cHeader& h) {
  const int64_t kv_dim = h.dim / h.heads * h.kv_heads, pairs = h.dim / h.heads / 2;
  const auto f32 = [](const char* name, std::vector<int64_t> shape) {
    return TensorInfo{name, DType::kF32, std::move(shape)};
  };
  const TensorInfo embed = f32("token_embedding_table", {h.vocab_size, h.dim});
  const TensorInfo norm_att = f32("rms_att_weight", {h.layers, h.dim});
  const TensorInfo norm_ffn = f32("rms_ffn_weight", {h.layers, h.dim});
  const TensorInfo norm_final = f32("rms_final_weight", {h.dim});
  const std::vector<TensorInfo> attention = {
      f32("wq", {h.layers, h.dim, h.dim}), f32("wk", {h.layers, kv_dim, h.dim}),
      f32("wv", {h.layers, kv_dim, h.dim}), f32("wo", {h.layers, h.dim, h.dim})};
  const std::vector<TensorInfo> ffn = {f32("w1", {h.layers, h.hidden_dim, h.dim}),
                                       f32("w2", {h.layers, h.dim, h.hidden_dim}),
                                       f32("w3", {h.layers, h.hidden_dim, h.dim})};
  std::vector<TensorInfo> infos;
  const auto add = [&](const std::vector<TensorInfo>& more) {
    infos.insert(infos.end(), more.begin(), more.end());
  };
  if (h.versioned) {
    add({norm_att, norm_ffn, norm_final, embed});
    add(attention);
    add(ffn);
  } else {
    add({embed, norm_att});
    add(attention);
    add({norm_ffn});
    add(ffn);
    add({norm_final, f32("freq_cis_real", {h.max_tokens, pairs}),
         f32("freq_cis_imag", {h.max_tokens, pairs})});
  }
  if (!h.shared_classifier) add({f32("wcls", {h.vocab_size, h.dim})});
  return infos;
}

// Nothing when the bytes are not exactly a header and its tensors.
std::optional<Layout> ParseLayout(std::span<const std::byte> file) {
  if (file.size() < kVersionedHeaderBytes) return {};
  Layout layout;
  layout.header = ReadHeader(file);
  if (!IsPlausible(layout.header)) return {};
  layout.infos = TensorsInOrder(layout.header);
  uint64_t offset = layout.header.versioned ? kVersionedHeaderBytes : kFirstHeaderBytes;
  for (const TensorInfo& info : layout.infos) {
    const auto bytes = TensorBytes(info.dtype, info.shape);
    if (!bytes || *bytes > file.size() - std::min<uint64_t>(offset, file.size())) return {};
    layout.offsets.push_back(offset);
    offset += *bytes;
  }
  return offset == file.size() ? std::optional(std::move(layout)) : std::nullopt;
}

}  // namespace

bool IsLlama2c(const std::filesystem::path& path) {
  const MappedFile file(path);
  try {
    return ParseLayout(file.bytes()).has_value();
  } catch (const Error&) {
    return false;
  }
}

Llama2cSource::Llama2cSource(const std::filesystem::path& path) : MappedSource(path) {
  Open(path, [&](std::span<const std::byte> file, const std::string& name) {
    auto layout = ParseLayout(file);
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, layout.has_value(), name,
                   ": not a llama2.c model in f32, or truncated: its size does not fit its header");
    header_ = layout->header;
    std::vector<StoredTensor> tensors;
    for (size_t i = 0; i < layout->infos.size(); ++i) {
      const auto bytes = file.subspan(layout->offsets[i], TensorBytes(layout->infos[i]));
      tensors.push_back(ContiguousTensor(std::move(layout->infos[i]), bytes));
    }
    return tensors;
  });
}

}  // namespace lwm::io
