#include "lwm/io/safetensors_rows.h"

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/safetensors.h"

namespace lwm::io {
namespace fs = std::filesystem;

struct SafetensorsRows::Part {
  Part(const fs::path& place, TensorInfo row_info)
      : row(std::move(row_info)), path(place), file(std::make_unique<OutputFile>(place)) {}
  ~Part() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }

  TensorInfo row;
  fs::path path;
  std::unique_ptr<OutputFile> file;
};

SafetensorsRows::SafetensorsRows(const fs::path& path, std::vector<TensorInfo> rows) : path_(path) {
  for (TensorInfo& row : rows) {
    LWM_CHECK(TensorBytes(row) > 0, "rows of ", row.name, " hold nothing");
    parts_.push_back(std::make_unique<Part>(TemporaryBeside(path), std::move(row)));
  }
}

SafetensorsRows::~SafetensorsRows() = default;

void SafetensorsRows::Append(size_t index, std::span<const std::byte> rows) {
  Part& part = *parts_.at(index);
  LWM_CHECK(rows.size() % TensorBytes(part.row) == 0, "a part of a row of ", part.row.name);
  part.file->Write(rows.data(), rows.size());
}

void SafetensorsRows::Finish() {
  constexpr size_t kPiece = 1 << 22;
  // Wider elements first keep every tensor aligned.
  std::stable_sort(parts_.begin(), parts_.end(), [](const auto& a, const auto& b) {
    return DTypeSize(a->row.dtype) > DTypeSize(b->row.dtype);
  });
  std::vector<TensorInfo> infos;
  for (const auto& part : parts_) {
    TensorInfo info = part->row;
    info.shape.insert(info.shape.begin(),
                      static_cast<int64_t>(part->file->position() / TensorBytes(part->row)));
    infos.push_back(std::move(info));
    part->file->Finish();
  }
  // The header states all sizes, so it can be written only now.
  SafetensorsWriter writer(path_, infos);
  for (const auto& part : parts_) {
    const MappedFile gathered(part->path);
    const auto bytes = gathered.bytes();
    for (size_t begin = 0; begin < bytes.size(); begin += kPiece) {
      const size_t length = std::min(kPiece, bytes.size() - begin);
      writer.Write(part->row.name, bytes.subspan(begin, length));
      gathered.Forget(begin, length);
    }
  }
  writer.Finish();
  parts_.clear();
}

}  // namespace lwm::io
