#include "lwm/io/gguf_writer.h"

#include "lwm/base/error.h"
#include "lwm/io/tensor_info.h"

namespace lwm::io {
namespace {

constexpr uint32_t kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9;

template <class T>
void Append(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendText(std::string& to, std::string_view text) {
  Append(to, uint64_t{text.size()});
  to.append(text);
}

uint64_t Aligned(uint64_t position) {
  return (position + GgufWriter::kAlignment - 1) / GgufWriter::kAlignment * GgufWriter::kAlignment;
}

std::string MakeHeader(const GgufKeys& keys, const std::vector<GgufWriter::Tensor>& tensors) {
  std::string header = "GGUF";
  Append(header, uint32_t{3});
  Append(header, uint64_t{tensors.size()});
  Append(header, keys.count());
  header += keys.bytes();
  uint64_t offset = 0;
  for (const GgufWriter::Tensor& tensor : tensors) {
    AppendText(header, tensor.name);
    Append(header, static_cast<uint32_t>(tensor.shape.size()));
    for (size_t d = tensor.shape.size(); d-- > 0;)
      Append(header, static_cast<uint64_t>(tensor.shape[d]));
    Append(header, static_cast<uint32_t>(tensor.type));
    Append(header, offset);
    // Every tensor begins at a multiple of the alignment, as Write pads them.
    offset = Aligned(offset + GgufBytes(tensor));
  }
  return header;
}

}  // namespace

uint64_t GgufBytes(const GgufWriter::Tensor& tensor) {
  const GgufTypeInfo type = *FindGgufType(static_cast<uint32_t>(tensor.type));
  const auto bytes = TensorBytes(DType::kU8, tensor.shape);
  LWM_CHECK(bytes.has_value(), "tensor ", tensor.name, " has an impossible shape");
  const auto block = static_cast<int64_t>(type.block);
  LWM_CHECK(block == 1 || (!tensor.shape.empty() && tensor.shape.back() % block == 0),
            "rows of tensor ", tensor.name, " are no whole blocks");
  return *bytes / type.block * type.bytes;
}

void GgufKeys::Begin(std::string_view key, uint32_t type) {
  ++count_;
  AppendText(bytes_, key);
  Append(bytes_, type);
}

void GgufKeys::BeginArray(std::string_view key, uint32_t type, uint64_t count) {
  Begin(key, kArray);
  Append(bytes_, type);
  Append(bytes_, count);
}

void GgufKeys::AddUnsigned(std::string_view key, uint32_t value) {
  Begin(key, kU32);
  Append(bytes_, value);
}

void GgufKeys::AddFloat(std::string_view key, float value) {
  Begin(key, kF32);
  Append(bytes_, value);
}

void GgufKeys::AddFlag(std::string_view key, bool value) {
  Begin(key, kBool);
  Append(bytes_, static_cast<uint8_t>(value));
}

void GgufKeys::AddText(std::string_view key, std::string_view value) {
  Begin(key, kString);
  AppendText(bytes_, value);
}

void GgufKeys::AddTexts(std::string_view key, std::span<const std::string> values) {
  BeginArray(key, kString, values.size());
  for (const std::string& value : values) AppendText(bytes_, value);
}

void GgufKeys::AddFloats(std::string_view key, std::span<const float> values) {
  BeginArray(key, kF32, values.size());
  for (const float value : values) Append(bytes_, value);
}

void GgufKeys::AddIntegers(std::string_view key, std::span<const int32_t> values) {
  BeginArray(key, kI32, values.size());
  for (const int32_t value : values) Append(bytes_, value);
}

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufKeys& keys,
                       std::vector<Tensor> tensors)
    : tensors_(std::move(tensors)), output_(path) {
  output_.file().Write(MakeHeader(keys, tensors_));
  PadTo(Aligned(output_.file().position()));
  remaining_ = tensors_.empty() ? 0 : GgufBytes(tensors_[0]);
}

void GgufWriter::PadTo(uint64_t position) {
  output_.file().Write(std::string(position - output_.file().position(), '\0'));
}

void GgufWriter::Write(const std::string& name, std::span<const std::byte> bytes) {
  LWM_CHECK(current_ < tensors_.size() && tensors_[current_].name == name, "tensor ", name,
            " written out of order");
  LWM_CHECK(bytes.size() <= remaining_, "tensor ", name, " has more bytes than declared");
  output_.file().Write(bytes.data(), bytes.size());
  remaining_ -= bytes.size();
  if (remaining_ > 0) return;
  PadTo(Aligned(output_.file().position()));
  if (++current_ < tensors_.size()) remaining_ = GgufBytes(tensors_[current_]);
}

void GgufWriter::Finish() {
  LWM_CHECK(current_ == tensors_.size(), "tensor ", tensors_[current_].name, " was not written");
  output_.Commit();
}

}  // namespace lwm::io
