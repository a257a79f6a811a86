#include "lwm/data/text_file.h"

#include <functional>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/data/gzip.h"
#include "lwm/data/utf8.h"
#include "lwm/data/wide_text.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

using Form = ContentKind::Form;
using Sink = std::function<void(std::string_view piece)>;

std::string_view ViewOf(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

ContentKind Judge(std::string_view bytes) {
  return RecognizeContent(bytes.substr(0, kContentHeadBytes), bytes.size() <= kContentHeadBytes);
}

bool IsWide(Form form) {
  return form == Form::kUtf16Le || form == Form::kUtf16Be || form == Form::kUtf32Le ||
         form == Form::kUtf32Be;
}

std::string_view WithoutMark(std::string_view text) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  return text;
}

[[noreturn]] void ThrowNoText(const std::string& where, const std::string& name, bool packed) {
  throw Error(ErrorCode::kCorruptData,
              Cat(where, ": ", packed ? "a gzip file whose content is " : "is ", name,
                  "; want text, JSON lines or a JSON array of objects"));
}

// The next form of `bytes` on their way to UTF-8, or false when they are UTF-8 or empty already.
// `packed`: they come out of a gzip file; set when they are one. Throws when they are no text.
bool DecodeOnce(std::string_view bytes, const std::string& where, bool& packed, const Sink& sink) {
  const ContentKind kind = Judge(bytes);
  if (kind.form == Form::kOther || (kind.form == Form::kGzip && packed))
    ThrowNoText(where, kind.name, packed);
  packed = packed || kind.form == Form::kGzip;
  if (kind.form == Form::kGzip)
    UnpackGzip(bytes, where, sink);
  else if (IsWide(kind.form))
    ConvertToUtf8(bytes, kind.form, where, sink);
  else
    return false;
  return true;
}

// A temporary file, made for the first piece and unlinked by the destructor; its mapping stays.
class TemporaryContent {
 public:
  void Write(std::string_view piece) {
    if (!file_) Begin();
    file_->Write(piece);
  }
  // nullptr if nothing was written.
  std::unique_ptr<MappedFile> Map() {
    if (!file_) return nullptr;
    file_.reset();
    return std::make_unique<MappedFile>(name_);
  }
  ~TemporaryContent() {
    std::error_code ignored;
    if (!name_.empty()) fs::remove(name_, ignored);
  }

 private:
  void Begin() {
    std::error_code error;
    const fs::path folder = fs::temp_directory_path(error);
    LWM_REQUIRE_AS(ErrorCode::kNotFound, !error, "TMPDIR: ", error.message());
    name_ = TemporaryBeside(folder / "lwm_text", "");
    file_ = std::make_unique<OutputFile>(name_);
  }

  fs::path name_;
  std::unique_ptr<OutputFile> file_;
};

void RequireUtf8Text(std::string_view text, const std::string& where) {
  const size_t nul = text.find('\0');
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, nul == text.npos, where, ": is binary (byte ", nul,
                 " is NUL); want text");
  const size_t bad = InvalidUtf8At(text, /*is_whole=*/true);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, bad == text.npos, where, ": is ",
                 DescribeInvalidUtf8(text, bad));
}

// A cut head may end within a pair of surrogates, which the converter would refuse.
std::string WideHead(std::string_view bytes, Form form, bool is_whole) {
  if (!is_whole) bytes = bytes.substr(0, bytes.size() / 4 * 4);
  for (const size_t cut : {size_t{0}, size_t{2}}) {
    std::string text;
    try {
      ConvertToUtf8(bytes.substr(0, bytes.size() - cut), form, "",
                    [&](std::string_view piece) { text += piece; });
      return text;
    } catch (const Error&) {  // damage is reported when it is read to its end
    }
  }
  return "";
}

}  // namespace

TextHead ReadTextHead(const fs::path& path) {
  const MappedFile file(path);
  std::string_view bytes = ViewOf(file);
  std::string unpacked;
  if (Judge(bytes).form == Form::kGzip) {
    unpacked = UnpackGzipHead(bytes, kContentHeadBytes + 1);
    bytes = unpacked;
  }
  TextHead head;
  head.kind = Judge(bytes);
  head.is_whole = bytes.size() <= kContentHeadBytes;
  bytes = bytes.substr(0, kContentHeadBytes);
  if (head.kind.form == Form::kUtf8) head.text = WithoutMark(bytes);
  if (!IsWide(head.kind.form)) return head;
  head.text = WideHead(bytes, head.kind.form, head.is_whole);
  head.kind = RecognizeContent(head.text, head.is_whole);
  return head;
}

TextFile::TextFile(const fs::path& path)
    : path_(path), mapped_(std::make_unique<MappedFile>(path)) {
  for (bool packed = false; mapped_;) {
    TemporaryContent content;
    const auto write = [&](std::string_view piece) { content.Write(piece); };
    if (!DecodeOnce(ViewOf(*mapped_), path.string(), packed, write)) break;
    mapped_ = content.Map();
  }
  if (mapped_) text_ = WithoutMark(ViewOf(*mapped_));
}

void TextFile::RequireUtf8() const { RequireUtf8Text(text_, path_.string()); }

std::string ReadText(const fs::path& path) { return DecodeText(ReadFile(path), path.string()); }

std::string DecodeText(std::string bytes, const std::string& where) {
  for (bool packed = false;;) {
    std::string decoded;
    const auto append = [&](std::string_view piece) { decoded += piece; };
    if (!DecodeOnce(bytes, where, packed, append)) break;
    bytes = std::move(decoded);
  }
  if (bytes.starts_with(kByteOrderMark)) bytes.erase(0, kByteOrderMark.size());
  RequireUtf8Text(bytes, where);
  return bytes;
}

}  // namespace lwm::data
