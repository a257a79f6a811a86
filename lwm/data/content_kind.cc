#include "lwm/data/content_kind.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/data/utf8.h"

namespace lwm::data {
namespace {

using namespace std::string_view_literals;
using Form = ContentKind::Form;

struct Signature {
  size_t at;
  std::string_view bytes;
  const char* name;
};

// Formats whose files may be text from end to end.
constexpr Signature kTextSignatures[] = {
    {0, "%PDF-"sv, "a PDF document"},
    {0, "{\\rtf"sv, "an RTF document"},
};

// Binary formats; a text may begin with the same letters. Zip and RIFF are told apart further
// below.
constexpr Signature kBinarySignatures[] = {
    {0, "\x28\xB5\x2F\xFD"sv, "compressed by zstd"},
    {0, "BZh"sv, "compressed by bzip2"},
    {0, "\xFD\x37zXZ\0"sv, "compressed by xz"},
    {0, "\x04\x22\x4D\x18"sv, "compressed by lz4"},
    {0, "\x1F\x9D"sv, "compressed by compress (.Z)"},
    {0, "LZIP\x01"sv, "compressed by lzip"},
    {0, "\xFF\x06\0\0sNaPpY"sv, "compressed by snappy"},
    {0, "7z\xBC\xAF\x27\x1C"sv, "a 7z archive"},
    {0, "Rar!\x1A\x07"sv, "a RAR archive"},
    {257, "ustar"sv, "a tar archive"},
    {0, "PAR1"sv, "a Parquet table"},
    {0, "PARE"sv, "an encrypted Parquet table"},
    {0, "ARROW1\0"sv, "an Arrow table"},
    {0, "\xFF\xFF\xFF\xFF"sv, "binary, perhaps an Arrow stream"},
    {0, "FEA1"sv, "a Feather table"},
    {0, "ORC\x0A"sv, "an ORC table"},
    {0, "Obj\x01"sv, "an Avro file"},
    {0, "SQLite format 3\0"sv, "an SQLite database"},
    {0, "\x89HDF\r\n\x1A\n"sv, "an HDF5 file"},
    {0, "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, "an Office document (.doc, .xls or .ppt)"},
    {0, "AT&TFORM"sv, "a DjVu document"},
    {60, "BOOKMOBI"sv, "a Kindle book"},
    {0, "\x89PNG\r\n\x1A\n"sv, "a PNG image"},
    {0, "\xFF\xD8\xFF"sv, "a JPEG image"},
    {0, "GIF87a"sv, "a GIF image"},
    {0, "GIF89a"sv, "a GIF image"},
    {0, "II*\0"sv, "a TIFF image"},
    {0, "MM\0*"sv, "a TIFF image"},
    {4, "ftyp"sv, "an MP4 video or another file of that family"},
    {0, "\x1A\x45\xDF\xA3"sv, "a Matroska or WebM video"},
    {0, "OggS\0"sv, "an Ogg sound or video"},
    {0, "fLaC\0"sv, "a FLAC sound"},
    {0, "ID3\x02"sv, "an MP3 sound"},
    {0, "ID3\x03"sv, "an MP3 sound"},
    {0, "ID3\x04"sv, "an MP3 sound"},
    {0, "\x93NUMPY"sv, "a NumPy array"},
    {0, "\x80\x02"sv, "a Python pickle"},
    {0, "\x80\x03"sv, "a Python pickle"},
    {0, "\x80\x04"sv, "a Python pickle"},
    {0, "\x80\x05"sv, "a Python pickle"},
    {0, "GGUF"sv, "a GGUF model"},
    {0,
     "\x7F"
     "ELF"sv,
     "a program (ELF)"},
    {0, "wOF"sv, "a font"},
};

bool HasAt(std::string_view head, size_t at, std::string_view bytes) {
  return head.size() >= at + bytes.size() && head.substr(at, bytes.size()) == bytes;
}

bool IsSafetensors(std::string_view head) {
  if (!HasAt(head, 8, "{\"")) return false;
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, head.data(), 8);
  return header_bytes >= 2 && header_bytes <= 100'000'000;
}

// Office documents, OpenDocument and EPUB are zip archives; their first entries tell.
std::string ZipName(std::string_view head) {
  if (head.find("application/epub+zip"sv) != head.npos) return "an EPUB book";
  if (head.find("application/vnd.oasis.opendocument"sv) != head.npos)
    return "an OpenDocument document";
  for (const std::string_view part : {"[Content_Types].xml"sv, "word/"sv, "xl/"sv, "ppt/"sv})
    if (head.find(part) != head.npos) return "an Office document (.docx, .xlsx or .pptx)";
  return "a zip archive";
}

std::string RiffName(std::string_view head) {
  if (HasAt(head, 8, "WEBP")) return "a WebP image";
  if (HasAt(head, 8, "WAVE")) return "a WAV sound";
  if (HasAt(head, 8, "AVI ")) return "an AVI video";
  return "a RIFF file";
}

template <size_t kCount>
std::string NameBySignature(std::string_view head, const Signature (&signatures)[kCount]) {
  for (const Signature& signature : signatures)
    if (HasAt(head, signature.at, signature.bytes)) return signature.name;
  return "";
}

std::string BinaryName(std::string_view head) {
  if (HasAt(head, 0, "PK\x03\x04") || HasAt(head, 0, "PK\x05\x06")) return ZipName(head);
  if (HasAt(head, 0, "RIFF")) return RiffName(head);
  if (IsSafetensors(head)) return "a safetensors file";
  return NameBySignature(head, kBinarySignatures);
}

std::optional<Form> WideForm(std::string_view head) {
  if (HasAt(head, 0, "\xFF\xFE\0\0"sv)) return Form::kUtf32Le;
  if (HasAt(head, 0, "\0\0\xFE\xFF"sv)) return Form::kUtf32Be;
  if (HasAt(head, 0, "\xFF\xFE"sv)) return Form::kUtf16Le;
  if (HasAt(head, 0, "\xFE\xFF"sv)) return Form::kUtf16Be;
  return std::nullopt;
}

// "UTF-16 (little-endian) text without a byte order mark" where NULs stand as Latin letters have
// them there, else "".
std::string UnmarkedWideName(std::string_view head) {
  const size_t units = std::min<size_t>(head.size(), 4096) / 4;
  size_t nul_at[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < 4 * units; ++i) nul_at[i % 4] += head[i] == '\0';
  const auto most = [&](size_t i) { return nul_at[i] * 4 > units * 3; };
  const auto few = [&](size_t i) { return nul_at[i] * 20 < units; };
  if (units < 2) return "";
  std::string name;
  if (few(0) && most(1) && most(2) && most(3)) name = "UTF-32 (little-endian)";
  if (most(0) && most(1) && most(2) && few(3)) name = "UTF-32 (big-endian)";
  if (few(0) && most(1) && few(2) && most(3)) name = "UTF-16 (little-endian)";
  if (most(0) && few(1) && most(2) && few(3)) name = "UTF-16 (big-endian)";
  return name.empty() ? "" : name + " text without a byte order mark; convert it to UTF-8";
}

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }

std::string_view WithoutLeadingSpace(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  return text;
}

// Text of another encoding has hardly any control characters.
bool HasFewControls(std::string_view head) {
  const auto controls = std::count_if(head.begin(), head.end(), [](char c) {
    return static_cast<uint8_t>(c) < 0x20 && !IsSpace(c) && c != '\x1B' && c != '\b';
  });
  return static_cast<size_t>(controls) * 100 <= head.size();
}

// Names content that is not text.
std::string OtherName(std::string_view head, size_t nul, size_t bad) {
  std::string name = NameBySignature(head, kTextSignatures);
  if (name.empty()) name = BinaryName(head);
  if (name.empty() && nul != head.npos) name = UnmarkedWideName(head);
  if (!name.empty()) return name;
  if (nul != head.npos) return Cat("binary (byte ", nul, " is NUL)");
  if (!HasFewControls(head)) return Cat("binary (byte ", bad, " is no character of UTF-8)");
  return DescribeInvalidUtf8(head, bad);
}

}  // namespace

ContentKind RecognizeContent(std::string_view head, bool is_whole) {
  if (HasAt(head, 0, "\x1F\x8B")) return {Form::kGzip, "compressed by gzip"};
  if (const auto wide = WideForm(head)) return {*wide, ""};
  if (head.starts_with(kByteOrderMark)) head.remove_prefix(kByteOrderMark.size());
  if (is_whole && WithoutLeadingSpace(head).empty()) return {Form::kEmpty, ""};
  const size_t nul = head.find('\0'), bad = InvalidUtf8At(head, is_whole);
  if (nul != head.npos || bad != head.npos) return {Form::kOther, OtherName(head, nul, bad)};
  const std::string name = NameBySignature(head, kTextSignatures);
  return {name.empty() ? Form::kUtf8 : Form::kOther, name};
}

std::string MarkupName(std::string_view text) {
  std::string begin(WithoutLeadingSpace(text).substr(0, 14));
  std::transform(begin.begin(), begin.end(), begin.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (begin.starts_with("<!doctype html") || begin.starts_with("<html")) return "an HTML page";
  return begin.starts_with("<?xml") ? "XML" : "";
}

namespace {

bool IsJsonObject(std::string_view text) {
  text = WithoutLeadingSpace(text);
  return text.starts_with('{') && Json::accept(text.begin(), text.end());
}

// True if another object follows the first line's object, or the head ends there (undecided).
bool ObjectFollows(std::string_view rest) {
  rest = WithoutLeadingSpace(rest);
  return rest.empty() || rest.front() == '{';
}

}  // namespace

JsonForm RecognizeJson(std::string_view head, bool is_whole) {
  head = WithoutLeadingSpace(head);
  if (head.starts_with('[')) {
    const std::string_view inside = WithoutLeadingSpace(head.substr(1));
    return inside.starts_with('{') || inside.starts_with(']') ? JsonForm::kArray : JsonForm::kNone;
  }
  if (!head.starts_with('{')) return JsonForm::kNone;
  const std::string_view inside = WithoutLeadingSpace(head.substr(1));
  const size_t end = head.find('\n');
  const bool begins_so = inside.starts_with('"') || inside.starts_with('}');
  if (end == head.npos && !is_whole) return begins_so ? JsonForm::kLines : JsonForm::kNone;
  if (IsJsonObject(head.substr(0, end)))
    return end == head.npos || ObjectFollows(head.substr(end)) ? JsonForm::kLines : JsonForm::kNone;
  const bool one = is_whole ? IsJsonObject(head) : inside.starts_with('"');
  return one ? JsonForm::kOneObject : JsonForm::kNone;
}

}  // namespace lwm::data
