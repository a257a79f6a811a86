#include "lwm/data/text_file.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/data/gzip.h"
#include "lwm/data/utf8.h"
#include "lwm/testing/damage.h"
#include "lwm/testing/gzip_bytes.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::data {
namespace {

using namespace std::string_literals;
using Form = ContentKind::Form;
using testing_support::GzipBytes;

// The text in UTF-16 or UTF-32 with a byte order mark, for ASCII and U+00E9.
std::string Wide(std::u32string text, int bytes, bool little) {
  std::string wide;
  text.insert(text.begin(), U'\uFEFF');
  for (const char32_t c : text)
    for (int i = 0; i < bytes; ++i)
      wide += static_cast<char>(c >> 8 * (little ? i : bytes - 1 - i));
  return wide;
}

class TextFileTest : public testing::Test {
 protected:
  std::string Put(const std::string& content) const {
    WriteFileAtomically(folder_ / "file", content);
    return (folder_ / "file").string();
  }
  std::string TextOf(const std::string& content) const {
    const TextFile file(Put(content));
    file.RequireUtf8();
    EXPECT_EQ(ReadText(file.path()), file.text());
    EXPECT_EQ(ReadTextHead(file.path()).text, file.text());
    return std::string(file.text());
  }
  // The message that both ways of reading give; their code is that of corrupt data.
  std::string Refusal(const std::string& content) const {
    const std::string path = Put(content);
    std::string message;
    for (const bool in_memory : {false, true}) {
      try {
        if (in_memory)
          ReadText(path);
        else
          TextFile(path).RequireUtf8();
        return "accepted";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
        EXPECT_TRUE(message.empty() || error.what() == message) << message;
        message = error.what();
      }
    }
    EXPECT_TRUE(message.starts_with(path + ": ")) << message;
    return message.substr(path.size() + 2);
  }

  testing_support::TemporaryFolder folder_;
};

TEST_F(TextFileTest, EveryWayToWriteATextGivesItsUtf8) {
  const std::string text = "café\r\nau lait\n";
  const std::u32string characters = U"caf\u00E9\r\nau lait\n";
  EXPECT_EQ(TextOf(text), text);
  EXPECT_EQ(TextOf("\xEF\xBB\xBF" + text), text);
  EXPECT_EQ(TextOf(GzipBytes(text)), text);
  EXPECT_EQ(TextOf(GzipBytes("\xEF\xBB\xBF" + text)), text);
  for (const int bytes : {2, 4})
    for (const bool little : {true, false}) {
      EXPECT_EQ(TextOf(Wide(characters, bytes, little)), text);
      EXPECT_EQ(TextOf(GzipBytes(Wide(characters, bytes, little))), text);
    }
  EXPECT_EQ(TextOf(""), "");
  EXPECT_EQ(TextOf(GzipBytes("")), "");
  EXPECT_EQ(TextOf("\xFF\xFE"), "");
  EXPECT_EQ(TextOf("\xFF\xFE\x3D\xD8\x00\xDE"s), "😀");
  EXPECT_EQ(TextOf("\xFE\xFF\xD8\x3D\xDE\x00"s), "😀");
}

TEST_F(TextFileTest, GzipFilesOfSeveralMembersAreReadWhole) {
  const std::string long_text(300000, 'x');
  EXPECT_EQ(ReadText(Put(GzipBytes("one ") + GzipBytes(long_text) + GzipBytes(" end"))),
            "one " + long_text + " end");
  EXPECT_EQ(TextOf(GzipBytes("padded") + std::string(512, '\0')), "padded");
  const TextHead head = ReadTextHead(Put(GzipBytes(long_text)));
  EXPECT_EQ(head.text, long_text.substr(0, kContentHeadBytes));
  EXPECT_FALSE(head.is_whole);
}

TEST_F(TextFileTest, DamagedGzipFilesAreNamed) {
  const std::string packed = GzipBytes("some text that will be cut");
  EXPECT_NE(Refusal(packed.substr(0, packed.size() - 9)).find("a truncated gzip file"), -1UL);
  EXPECT_NE(Refusal(packed.substr(0, 11)).find("a truncated gzip file"), -1UL);
  std::string damaged = packed;
  damaged[20] ^= 1;
  EXPECT_NE(Refusal(damaged).find("a damaged gzip file (incorrect data check)"), -1UL);
  EXPECT_NE(Refusal(packed + "tail").find("4 bytes behind its end"), -1UL);
  EXPECT_NE(Refusal(GzipBytes(packed)).find("whose content is compressed by gzip"), -1UL);
  EXPECT_NE(Refusal(GzipBytes("\x89PNG\r\n\x1A\n\0"s)).find("content is a PNG image"), -1UL);
}

TEST_F(TextFileTest, DamagedFilesAreRefusedOrReadAndNeverWorse) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "line " + std::to_string(i) + " of a text\n";
  testing_support::DamagedVariants variants(
      GzipBytes(text.substr(0, 300)) + GzipBytes(text.substr(300)),
      testing_support::AsFile(folder_ / "file", [&] { TextFile(folder_ / "file").RequireUtf8(); }));
  for (size_t size = 2; size < 300; ++size)  // one byte is a text
    EXPECT_NE(variants.Try(variants.whole().substr(0, size)), "") << "cut at " << size;
  variants.ChangeEveryByte(3);
  variants.ExpectEnoughAndLittleMemory();
}

TEST_F(TextFileTest, OtherEncodingsAreNamedWithThePlace) {
  EXPECT_EQ(Refusal("un\ncaf\xE9 noir"),
            "is text that is not UTF-8: byte 6 (line 2) is 0xe9; convert it, for instance with "
            "iconv -f WINDOWS-1252 -t UTF-8; want text, JSON lines or a JSON array of objects");
  const std::string far = std::string(2 * kContentHeadBytes, 'x') + "\xE9";
  EXPECT_NE(Refusal(far).find("byte 131072 (line 1) is 0xe9"), -1UL);
  EXPECT_NE(Refusal(std::string(2 * kContentHeadBytes, 'x') + '\0').find("is NUL"), -1UL);
  std::string unmarked = Wide(U"plain letters", 2, true).substr(2);
  EXPECT_NE(Refusal(unmarked).find("UTF-16 (little-endian) text without a byte order"), -1UL);
  unmarked = Wide(U"plain letters", 4, false).substr(4);
  EXPECT_NE(Refusal(unmarked).find("UTF-32 (big-endian) text without a byte order"), -1UL);
  EXPECT_NE(Refusal("\xFF\xFE\x3D\xD8 \0"s).find("byte 2 begins no character of UTF-16"), -1UL);
  EXPECT_NE(Refusal("\xFF\xFE\x3D"s).find("ends within a character of UTF-16"), -1UL);
  EXPECT_NE(Refusal("\xFF\xFE\0\0\0\0\x11\0"s).find("no character of UTF-32"), -1UL);
}

// A head is not cut within a character.
TEST_F(TextFileTest, HeadsOfLongTextsAreText) {
  std::string text(kContentHeadBytes - 1, 'x');
  text += "éé";
  EXPECT_EQ(ReadTextHead(Put(text)).kind.form, Form::kUtf8);
  std::u32string wide(kContentHeadBytes, U'\u00E9');
  EXPECT_EQ(ReadTextHead(Put(Wide(wide, 2, true))).kind.form, Form::kUtf8);
}

std::string NameOf(std::string head) {
  head += std::string(100, '\0');
  const ContentKind kind = RecognizeContent(head, true);
  EXPECT_EQ(kind.form, Form::kOther) << head;
  return kind.name;
}

TEST(ContentKindTest, BinaryFormatsAreNamed) {
  EXPECT_EQ(NameOf("PAR1"), "a Parquet table");
  EXPECT_EQ(NameOf("ARROW1"), "an Arrow table");
  EXPECT_EQ(NameOf("%PDF-1.7\n%\xE2\xE3"), "a PDF document");
  EXPECT_EQ(NameOf("SQLite format 3"), "an SQLite database");
  EXPECT_EQ(NameOf("\xFF\xD8\xFF\xE0"), "a JPEG image");
  EXPECT_EQ(NameOf("\x28\xB5\x2F\xFD"), "compressed by zstd");
  EXPECT_EQ(NameOf("BZh91AY"), "compressed by bzip2");
  EXPECT_EQ(NameOf("\xFD\x37zXZ"), "compressed by xz");
  EXPECT_EQ(NameOf("PK\x03\x04 mimetypeapplication/epub+zip"), "an EPUB book");
  EXPECT_EQ(NameOf("PK\x03\x04 word/document.xml"), "an Office document (.docx, .xlsx or .pptx)");
  EXPECT_EQ(NameOf("PK\x03\x04 a.txt"), "a zip archive");
  EXPECT_EQ(NameOf("RIFF....WEBP"), "a WebP image");
  EXPECT_EQ(NameOf("....ftypisom"), "an MP4 video or another file of that family");
  EXPECT_EQ(NameOf(std::string(257, 'a') + "ustar"), "a tar archive");
  EXPECT_EQ(NameOf("\x20\0\0\0\0\0\0\0{\"a\":"s), "a safetensors file");
  EXPECT_EQ(NameOf("any"), "binary (byte 3 is NUL)");
}

TEST(ContentKindTest, TextsThatBeginWithTheLettersOfAFormatAreText) {
  for (const char* text : {"PAR1 is a format.", "GGUF is one, too", "BZh", "RIFF of a guitar",
                           "ID3\x03", "....ftyp", "Rar!\x1A\x07 in a text", "é", "a\fb\x1B[1m"})
    EXPECT_EQ(RecognizeContent(text, true).form, Form::kUtf8) << text;
  EXPECT_EQ(RecognizeContent("%PDF-1.4 of letters", true).name, "a PDF document");
  for (const char* blank : {"", " \r\n\t", "\xEF\xBB\xBF\n"})
    EXPECT_EQ(RecognizeContent(blank, true).form, Form::kEmpty);
  EXPECT_EQ(RecognizeContent(" ", false).form, Form::kUtf8);
}

TEST(ContentKindTest, JsonIsToldByItsBeginning) {
  const auto whole = [](std::string_view text) { return RecognizeJson(text, true); };
  EXPECT_EQ(whole("{\"a\": 1}\n{\"a\": 2}\n"), JsonForm::kLines);
  EXPECT_EQ(whole("\n{\"a\": 1}\r\n\r\n{\"a\": 2}"), JsonForm::kLines);
  EXPECT_EQ(whole("{\"a\": {\"b\": 1}}"), JsonForm::kLines);
  EXPECT_EQ(whole("[{\"a\": 1},"), JsonForm::kArray);
  EXPECT_EQ(whole(" [\n {"), JsonForm::kArray);
  EXPECT_EQ(whole("{\n \"a\": [1,\n 2]\n}\n"), JsonForm::kOneObject);
  EXPECT_EQ(RecognizeJson("{\n \"a\": [1,", false), JsonForm::kOneObject);
  EXPECT_EQ(RecognizeJson("{\"text\": \"a long li", false), JsonForm::kLines);
  for (const char* text : {"", "prose", "{ is a brace", "[1] Reference", "{\"a\": 1}\nand prose",
                           "{\"a\": 1 and no more\n", "[citation needed]", "{\n return 1;\n}"})
    EXPECT_EQ(whole(text), JsonForm::kNone) << text;
}

TEST(ContentKindTest, MarkupIsNoted) {
  EXPECT_EQ(MarkupName("\n<!DOCTYPE HTML PUBLIC"), "an HTML page");
  EXPECT_EQ(MarkupName("<html lang=\"de\">"), "an HTML page");
  EXPECT_EQ(MarkupName("<?xml version"), "XML");
  EXPECT_EQ(MarkupName("a < b"), "");
}

}  // namespace
}  // namespace lwm::data
