#include "lwm/data/text_source.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/data/text_file.h"
#include "lwm/data/tokenizer_files.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

struct TokenisedText {
  std::vector<int32_t> token_n;
  std::string hash;  // of the text, 16 hex digits
};

// The tokens of one text file, in memory or in a mapped cache file (32 B header, int32 tokens).
class TokenFile {
 public:
  explicit TokenFile(TokenisedText text) : memory_(std::move(text.token_n)), hash_(text.hash) {
    token_n_ = memory_;
  }
  // Throws Error(kCorruptData) when the cache file is damaged.
  explicit TokenFile(const fs::path& cached) : mapped_(std::make_unique<MappedFile>(cached)) {
    const std::span<const std::byte> bytes = mapped_->bytes();
    uint64_t count = 0;
    if (bytes.size() >= kHeaderBytes) std::memcpy(&count, bytes.data() + 8, 8);
    LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                   bytes.size() >= kHeaderBytes && std::memcmp(bytes.data(), kMagic, 8) == 0 &&
                       count == (bytes.size() - kHeaderBytes) / 4 && bytes.size() % 4 == 0,
                   cached.string(), ": damaged token cache; delete it");
    hash_.assign(reinterpret_cast<const char*>(bytes.data() + 16), kHashBytes);
    token_n_ = {reinterpret_cast<const int32_t*>(bytes.data() + kHeaderBytes), count};
  }

  static std::string Serialize(const TokenisedText& text) {
    const uint64_t count = text.token_n.size();
    std::string bytes(kHeaderBytes + 4 * count, '\0');
    std::memcpy(bytes.data(), kMagic, 8);
    std::memcpy(bytes.data() + 8, &count, 8);
    std::memcpy(bytes.data() + 16, text.hash.data(), kHashBytes);
    std::memcpy(bytes.data() + kHeaderBytes, text.token_n.data(), 4 * count);
    return bytes;
  }

  std::span<const int32_t> tokens() const { return token_n_; }
  const std::string& hash() const { return hash_; }

  static constexpr char kMagic[] = "lwmtok2";

 private:
  static constexpr size_t kHashBytes = 16, kHeaderBytes = 16 + kHashBytes;
  std::vector<int32_t> memory_;
  std::string hash_;
  std::unique_ptr<MappedFile> mapped_;
  std::span<const int32_t> token_n_;
};

TokenisedText TokenizeFile(const fs::path& path, const Tokenizer& tokenizer) {
  const TextFile file(path);
  file.RequireUtf8();
  std::vector<int32_t> ids = tokenizer.Encode(file.text());
  if (const auto bos = tokenizer.leading_bos()) ids.insert(ids.begin(), *bos);
  if (tokenizer.eos_id() >= 0) ids.push_back(tokenizer.eos_id());
  return {std::move(ids), HashHex(std::as_bytes(std::span(file.text())))};
}

// A name that changes with the file and with the tokenizer.
std::string CacheName(const fs::path& path, const std::string& tokenizer_hash) {
  const auto changed = fs::last_write_time(path).time_since_epoch().count();
  const std::string key = Cat(fs::weakly_canonical(path).string(), '\n', fs::file_size(path), '\n',
                              changed, '\n', tokenizer_hash, '\n', TokenFile::kMagic);
  return HashHex(std::as_bytes(std::span(key))) + ".tokens";
}

std::unique_ptr<TokenFile> OpenTokens(const fs::path& path, const Tokenizer& tokenizer,
                                      const std::string& tokenizer_hash, const fs::path& cache) {
  if (cache.empty()) return std::make_unique<TokenFile>(TokenizeFile(path, tokenizer));
  const fs::path cached = cache / CacheName(path, tokenizer_hash);
  if (!fs::exists(cached)) {
    fs::create_directories(cache);
    WriteFileAtomically(cached, TokenFile::Serialize(TokenizeFile(path, tokenizer)));
  }
  return std::make_unique<TokenFile>(cached);
}

struct Document {
  std::unique_ptr<TokenFile> file;
  std::string name;
  int64_t first_unit = 0;   // separate documents
  int64_t first_token = 0;  // joined
};

class TextSource : public ExampleSource {
 public:
  TextSource(const std::vector<DocumentFile>& files, const Tokenizer& tokenizer,
             const TextSourceOptions& options)
      : options_(options), has_bos_(tokenizer.begins_with_bos()), name_(NameOfFiles(files)) {
    // The ids: a tokenizer.json does not hold them.
    const std::string tokenizer_key = Cat(TokenizerKey(tokenizer), has_bos_ ? "+" : "-",
                                          tokenizer.bos_id(), ' ', tokenizer.eos_id());
    const std::string tokenizer_hash = HashHex(std::as_bytes(std::span(tokenizer_key)));
    for (const DocumentFile& file : files)
      Append({OpenTokens(file.path, tokenizer, tokenizer_hash, options.cache), file.path.string(),
              0, 0});
    if (options_.joined) units_ = UnitsOf(tokens_);
    LWM_REQUIRE(units_ > 0, "none of ", files.size(), " text files (", files[0].path.string(),
                ", ...) has a length of ", options_.min_document_tokens, " to ",
                options_.max_document_tokens, " tokens and something to learn");
    std::string hashes;
    for (const Document& document : documents_) hashes += document.file->hash();
    fingerprint_ = HashHex(std::as_bytes(std::span(hashes)));
  }

  int64_t units() const override { return units_; }
  int64_t files() const override { return static_cast<int64_t>(documents_.size()); }
  int64_t tokens() const override { return tokens_; }
  int64_t pieces() const override { return units_; }
  std::string fingerprint() const override { return fingerprint_; }
  std::string name() const override { return name_; }
  Example Read(int64_t unit, int64_t /*epoch*/) const override {
    return options_.joined ? ReadJoined(unit) : ReadSeparate(unit);
  }

 private:
  // A unit ends where the next one begins and is given that token to predict, so the last token of
  // a document alone makes no unit.
  int64_t UnitsOf(int64_t tokens) const {
    return tokens < 2 ? 0 : (tokens - 2) / options_.row_tokens + 1;
  }

  void Append(Document document) {
    const auto size = static_cast<int64_t>(document.file->tokens().size());
    if (size < options_.min_document_tokens || UnitsOf(size) == 0) return;
    if (options_.max_document_tokens > 0 && size > options_.max_document_tokens) return;
    document.first_unit = units_;
    document.first_token = tokens_;
    units_ += UnitsOf(size);
    tokens_ += size;
    documents_.push_back(std::move(document));
  }

  Example ReadSeparate(int64_t unit) const {
    const auto after = std::upper_bound(
        documents_.begin(), documents_.end(), unit,
        [](int64_t value, const Document& document) { return value < document.first_unit; });
    const Document& document = *std::prev(after);
    const std::span<const int32_t> token_n = document.file->tokens();
    const auto size = static_cast<int64_t>(token_n.size());
    const int64_t begin = (unit - document.first_unit) * options_.row_tokens;
    const int64_t end = std::min(begin + options_.row_tokens, size);
    Example example = MakeExample(document, begin, end - begin);
    AppendTokens(document, begin, end, example);
    if (end < size) SetNext(token_n[static_cast<size_t>(end)], example);
    return example;
  }

  Example ReadJoined(int64_t unit) const {
    const int64_t planned = unit * options_.row_tokens;
    const int64_t begin =
        std::max<int64_t>(0, std::min(planned, tokens_ - 1 - options_.row_tokens));
    const int64_t end = std::min(begin + options_.row_tokens, tokens_);
    auto document = std::prev(std::upper_bound(
        documents_.begin(), documents_.end(), begin,
        [](int64_t value, const Document& other) { return value < other.first_token; }));
    Example example = MakeExample(*document, begin - document->first_token, end - begin);
    for (; document != documents_.end() && document->first_token < end; ++document)
      AppendTokens(*document, std::max<int64_t>(0, begin - document->first_token),
                   std::min(end - document->first_token,
                            static_cast<int64_t>(document->file->tokens().size())),
                   example);
    for (int64_t i = 0; i <= planned - begin && planned > begin; ++i)
      example.loss_weight_n[static_cast<size_t>(i)] = 0;
    if (end < tokens_) SetNextJoined(end, example);
    return example;
  }

  Example MakeExample(const Document& document, int64_t begin, int64_t size) const {
    Example example;
    example.source = Cat(document.name, " token ", begin);
    example.token_n.reserve(static_cast<size_t>(size));
    example.vision_n.assign(static_cast<size_t>(size), 0);
    example.loss_weight_n.assign(static_cast<size_t>(size), 1.0f);
    return example;
  }

  void AppendTokens(const Document& document, int64_t begin, int64_t end, Example& example) const {
    if (begin == 0 && has_bos_) example.loss_weight_n[example.token_n.size()] = 0;
    const auto first = document.file->tokens().begin();
    example.token_n.insert(example.token_n.end(), first + begin, first + end);
  }

  static void SetNext(int32_t token, Example& example) {
    example.next_token = token;
    example.next_loss_weight = 1;
  }

  void SetNextJoined(int64_t index, Example& example) const {
    const auto document = std::prev(std::upper_bound(
        documents_.begin(), documents_.end(), index,
        [](int64_t value, const Document& other) { return value < other.first_token; }));
    const int64_t at = index - document->first_token;
    SetNext(document->file->tokens()[static_cast<size_t>(at)], example);
    if (at == 0 && has_bos_) example.next_loss_weight = 0;
  }

  TextSourceOptions options_;
  bool has_bos_;
  std::string name_, fingerprint_;
  std::vector<Document> documents_;
  int64_t units_ = 0, tokens_ = 0;
};

}  // namespace

std::unique_ptr<ExampleSource> OpenTextSource(const std::vector<DocumentFile>& files,
                                              const Tokenizer& tokenizer,
                                              const TextSourceOptions& options) {
  return std::make_unique<TextSource>(files, tokenizer, options);
}

}  // namespace lwm::data
