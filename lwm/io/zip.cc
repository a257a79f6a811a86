#include "lwm/io/zip.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "lwm/io/byte_reader.h"

namespace lwm::io {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50, kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr size_t kEndBytes = 22, kLocatorBytes = 20, kMaxComment = 65535;
constexpr uint32_t kIn64 = 0xffffffff;
// Bounds the table that a hostile directory can demand. Contents are spans into the file, so
// entries that overlap cost nothing.
constexpr uint64_t kMaxEntries = 500'000;

struct Directory {
  uint64_t entries = 0, bytes = 0, offset = 0;
};

uint32_t SignatureAt(std::span<const std::byte> file, size_t position) noexcept {
  uint32_t signature;
  std::memcpy(&signature, file.data() + position, sizeof(signature));
  return signature;
}

// Position of the end record: the last place where its signature stands. A comment of up to 65535
// bytes may follow it, so it is searched backwards from the end.
std::optional<size_t> FindEnd(std::span<const std::byte> file) noexcept {
  if (file.size() < kEndBytes) return {};
  const size_t last = file.size() - kEndBytes;
  for (size_t back = 0; back <= std::min(last, kMaxComment); ++back)
    if (SignatureAt(file, last - back) == kEnd) return last - back;
  return {};
}

Directory ReadEnd64(ByteReader& in, uint64_t position) {
  in.Seek(position);
  in.Require(in.Number<uint32_t>() == kEnd64, "damaged zip64 end record");
  in.Bytes(20);  // the record's size, versions, disks
  in.Bytes(8);   // entries on this disk
  Directory directory;
  directory.entries = in.Number<uint64_t>();
  directory.bytes = in.Number<uint64_t>();
  directory.offset = in.Number<uint64_t>();
  return directory;
}

Directory ReadDirectory(ByteReader& in, std::span<const std::byte> file) {
  const auto found = FindEnd(file);
  in.Require(found.has_value(),
             "no zip directory at the end: the file is truncated, the download is incomplete");
  const size_t end = *found;
  if (end >= kLocatorBytes) {
    in.Seek(end - kLocatorBytes);
    if (in.Number<uint32_t>() == kEnd64Locator) {
      in.Bytes(4);
      return ReadEnd64(in, in.Number<uint64_t>());
    }
  }
  in.Seek(end + 10);
  Directory directory;
  directory.entries = in.Number<uint16_t>();
  directory.bytes = in.Number<uint32_t>();
  directory.offset = in.Number<uint32_t>();
  return directory;
}

struct Entry {
  std::string name;
  uint32_t crc32 = 0;
  uint64_t bytes = 0, packed_bytes = 0, header_offset = 0;
};

// The zip64 extra field holds, in this order, those of the values that the entry marks as absent.
void ReadExtra64(std::span<const std::byte> extra, const std::string& where, Entry& entry) {
  ByteReader in(extra, where);
  while (in.remaining() >= 4) {
    const auto id = in.Number<uint16_t>();
    ByteReader field(in.Bytes(in.Number<uint16_t>()), where);
    if (id != 1) continue;
    if (entry.bytes == kIn64) entry.bytes = field.Number<uint64_t>();
    if (entry.packed_bytes == kIn64) entry.packed_bytes = field.Number<uint64_t>();
    if (entry.header_offset == kIn64) entry.header_offset = field.Number<uint64_t>();
  }
}

Entry ReadEntry(ByteReader& in) {
  in.Require(in.Number<uint32_t>() == kCentralHeader, "damaged zip directory");
  in.Bytes(4);
  const auto flags = in.Number<uint16_t>();
  const auto method = in.Number<uint16_t>();
  in.Bytes(4);
  Entry entry;
  entry.crc32 = in.Number<uint32_t>();
  entry.packed_bytes = in.Number<uint32_t>();
  entry.bytes = in.Number<uint32_t>();
  const auto name_bytes = in.Number<uint16_t>();
  const auto extra_bytes = in.Number<uint16_t>();
  const auto comment_bytes = in.Number<uint16_t>();
  in.Bytes(8);
  entry.header_offset = in.Number<uint32_t>();
  entry.name = in.Text(name_bytes);
  ReadExtra64(in.Bytes(extra_bytes), in.where(), entry);
  in.Bytes(comment_bytes);
  in.Require((flags & 1) == 0, "zip entry ", entry.name, " is encrypted");
  in.Require(method == 0 && entry.bytes == entry.packed_bytes, "zip entry ", entry.name,
             " is compressed; save it again with torch.save");
  return entry;
}

std::span<const std::byte> EntryBytes(ByteReader& in, const Entry& entry) {
  // Name and extra field of the local header may be longer than the directory's: the content begins
  // after the local ones.
  in.Seek(entry.header_offset);
  in.Require(in.Number<uint32_t>() == kLocalHeader, "zip entry ", entry.name,
             " has a damaged header");
  in.Bytes(22);
  const auto name_bytes = in.Number<uint16_t>();
  const auto extra_bytes = in.Number<uint16_t>();
  in.Bytes(name_bytes);
  in.Bytes(extra_bytes);
  return in.Bytes(entry.bytes);
}

std::array<uint32_t, 256> CrcTable() {
  constexpr uint32_t kPolynomial = 0xedb88320;  // of IEEE 802.3, bits reversed
  std::array<uint32_t, 256> table;
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value & 1 ? kPolynomial : 0) ^ (value >> 1);
    table[i] = value;
  }
  return table;
}

}  // namespace

uint32_t Crc32(std::span<const std::byte> bytes) noexcept {
  static const std::array<uint32_t, 256> table = CrcTable();
  uint32_t crc = ~uint32_t{0};
  for (const std::byte byte : bytes)
    crc = table[(crc ^ static_cast<uint32_t>(byte)) & 255] ^ (crc >> 8);
  return ~crc;
}

bool HasZipDirectory(std::span<const std::byte> file) noexcept { return FindEnd(file).has_value(); }

std::span<const std::byte> FromFirstEntry(std::span<const std::byte> file) noexcept {
  constexpr size_t kNameBytesAt = 26, kHeaderBytes = 30;
  if (file.size() < kHeaderBytes || SignatureAt(file, 0) != kLocalHeader) return {};
  uint16_t lengths[2];  // of the name and of the extra field
  std::memcpy(lengths, file.data() + kNameBytesAt, sizeof(lengths));
  const size_t begin = kHeaderBytes + lengths[0] + lengths[1];
  return begin < file.size() ? file.subspan(begin) : std::span<const std::byte>();
}

std::map<std::string, ZipEntry> ReadStoredZip(std::span<const std::byte> file,
                                              const std::string& where) {
  ByteReader in(file, where);
  const Directory directory = ReadDirectory(in, file);
  in.Require(directory.entries <= kMaxEntries, "too many zip entries");
  std::map<std::string, ZipEntry> entries;
  in.Seek(directory.offset);
  for (uint64_t i = 0; i < directory.entries; ++i) {
    const Entry entry = ReadEntry(in);
    // The reader jumps to the content; the directory goes on here.
    const size_t next = in.position();
    const bool is_new =
        entries.emplace(entry.name, ZipEntry{EntryBytes(in, entry), entry.crc32}).second;
    in.Require(is_new, "zip entry ", entry.name, " appears twice");
    in.Seek(next);
  }
  return entries;
}

}  // namespace lwm::io
