// Runs a fuzz target over files of seeds without libFuzzer, so that the tests compile every target
// and repeat inputs that once failed: each file whole, and cut at eight lengths.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kCuts = 8;

void Replay(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
  for (size_t part = 1; part <= kCuts; ++part) {
    // A buffer of its own, so that a sanitizer sees reads beyond the cut.
    const std::vector<uint8_t> input(
        bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() * part / kCuts));
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  LLVMFuzzerTestOneInput(nullptr, 0);
  int files = 0;
  for (int i = 1; i < argc; ++i)
    for (const auto& entry : std::filesystem::directory_iterator(argv[i]))
      if (entry.is_regular_file()) {
        std::printf("%s\n", entry.path().c_str());  // named, should the next line end the program
        std::fflush(stdout);
        Replay(entry.path());
        ++files;
      }
  std::printf("%d files\n", files);
  return argc > 1 && files == 0 ? 1 : 0;
}
