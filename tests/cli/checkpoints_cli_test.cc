// lwm with checkpoints as people have them: split, quantised by others, in a cache, wrapped, half
// downloaded. Each is read, or named for what it is.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/io/safetensors.h"
#include "lwm/testing/golden_folder.h"
#include "tests/cli/run_program.h"

namespace lwm {
namespace {
namespace fs = std::filesystem;

using testing_support::GoldenFolder;
using testing_support::ProgramResult;
using testing_support::RunLwm;
using testing_support::TemporaryFolder;

constexpr char kPointer[] =
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 269060552\n";

class CheckpointsCliTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  void Make(const std::string& name, const std::string& content) {
    fs::create_directories(fs::path(Path(name)).parent_path());
    std::ofstream(Path(name)) << content;
  }
  // The model that writes stories, as a model directory.
  void MakeStories(const std::string& name) {
    const std::string from = GoldenFolder("tiny_stories").string();
    const auto result = RunLwm("convert --from " + from + "/stories260K.bin --tokenizer " + from +
                               "/tok512.bin --to " + Path(name));
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  // Writes its known text.
  void ExpectStory(const std::string& model, const std::string& note = "") {
    const auto result = RunLwm("generate --model " + Path(model) +
                               " --prompt '' --temperature 0 --max-new-tokens 20 --dtype f32");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const std::string story = ReadFile(GoldenFolder("tiny_stories") / "expected.txt");
    EXPECT_EQ(result.out.substr(0, 30), story.substr(0, 30));
    EXPECT_NE(result.err.find(note), std::string::npos) << result.err;
  }
  void ExpectRefused(const std::string& arguments, int exit_code,
                     const std::vector<std::string>& parts) {
    ExpectRefused(RunLwm(arguments), exit_code, parts);
  }
  void ExpectRefused(const ProgramResult& result, int exit_code,
                     const std::vector<std::string>& parts) {
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    for (const std::string& part : parts)
      EXPECT_NE(result.err.find(part), std::string::npos) << part << " not in " << result.err;
  }
  // Logits of the last of the golden's ids are its logits.
  void ExpectLogits(const fs::path& model, const fs::path& golden);

  TemporaryFolder folder_;
};

void CheckpointsCliTest::ExpectLogits(const fs::path& model, const fs::path& golden) {
  const Json expected = ReadJsonFile(golden / "expected.json");
  const auto ids = expected.at("ids").get<std::vector<int32_t>>();
  const auto logits = expected.at("logits").get<std::vector<double>>();
  io::SafetensorsWriter writer(
      folder_ / "ids", {{"input_ids", io::DType::kI32, {1, static_cast<int64_t>(ids.size())}}});
  writer.Write("input_ids", std::as_bytes(std::span(ids)));
  writer.Finish();
  const auto result = RunLwm("logits --dtype f32 --model " + model.string() + " --input " +
                             Path("ids") + " --output " + Path("logits"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const io::SafetensorsFile file(Path("logits"));
  const auto bytes = file.bytes("logits");
  std::vector<float> got(bytes.size() / sizeof(float));
  std::memcpy(got.data(), bytes.data(), bytes.size());
  ASSERT_GE(got.size(), logits.size());
  double largest = 0, worst = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    largest = std::max(largest, std::fabs(logits[i]));
    worst = std::max(worst, std::fabs(logits[i] - got[got.size() - logits.size() + i]));
  }
  EXPECT_LE(worst, 0.002 * largest);  // F16 weights against f32, and five decimals
}

TEST_F(CheckpointsCliTest, SplitGgufIsReadWhicheverPartIsNamed) {
  const fs::path golden = GoldenFolder("gguf_split");
  for (const char* part : {"tiny-00001-of-00003.gguf", "tiny-00003-of-00003.gguf"})
    ExpectLogits(golden / part, golden);
  fs::create_directories(Path("parts"));
  for (const char* part : {"tiny-00001-of-00003.gguf", "tiny-00002-of-00003.gguf"})
    fs::copy_file(golden / part, Path("parts") / fs::path(part));
  ExpectRefused("logits --model " + Path("parts") + " --input x --output " + Path("y"), 1,
                {"tiny-00003-of-00003.gguf", "download is incomplete"});
  fs::copy_file(golden / "tiny-00003-of-00003.gguf", Path("parts/tiny-00003-of-00003.gguf"));
  ExpectLogits(Path("parts"), golden);
  const auto result =
      RunLwm("tokenize --tokenizer " + Path("parts/tiny-00002-of-00003.gguf"), "\"the\"\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST_F(CheckpointsCliTest, KQuantsGiveTheLogitsOfTheReference) {
  const fs::path golden = GoldenFolder("gguf_k_quants");
  ExpectLogits(golden / "tiny.gguf", golden);
  const auto result = RunLwm("convert --from " + (golden / "tiny.gguf").string() + " --to " +
                             Path("model") + " --dtype f32");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  ExpectLogits(Path("model"), golden);
}

TEST_F(CheckpointsCliTest, CacheRunAndGgufFoldersAreFollowed) {
  MakeStories("models--acme--tiny/snapshots/0a1b");
  Make("models--acme--tiny/refs/main", "0a1b");
  ExpectStory("models--acme--tiny");
  ExpectStory("models--acme--tiny/snapshots");
  fs::create_directories(Path("run"));
  fs::create_directory_symlink(Path("models--acme--tiny/snapshots/0a1b"), Path("run/model"));
  ExpectStory("run");
  fs::create_directories(Path("files"));
  ASSERT_EQ(RunLwm("convert --from " + Path("run") + " --to " + Path("files/model.gguf") +
                   " --format gguf --dtype f32")
                .exit_code,
            0);
  ExpectStory("files");
  const auto inspected = RunLwm("inspect " + Path("models--acme--tiny"));
  EXPECT_NE(inspected.out.find("vocab_size 512"), std::string::npos) << inspected.out;
}

TEST_F(CheckpointsCliTest, PrefixOfAWrapperIsTakenOffAndSaid) {
  MakeStories("model");
  MakeStories("wrapped");
  const io::SafetensorsFile file(Path("model/model.safetensors"));
  for (const std::string prefix : {"_orig_mod.", "module.", "base_model.model."}) {
    std::vector<io::TensorInfo> infos = file.infos();
    for (io::TensorInfo& info : infos) info.name.insert(0, prefix);
    io::SafetensorsWriter writer(Path("wrapped/model.safetensors"), infos);
    for (const io::TensorInfo& info : file.infos())
      writer.Write(prefix + info.name, file.bytes(info.name));
    writer.Finish();
    ExpectStory("wrapped", "model.safetensors: took the prefix \"" + prefix + "\" off");
  }
}

TEST_F(CheckpointsCliTest, GitLfsPointersAreNamed) {
  MakeStories("model");
  for (const char* name : {"pointer/model.safetensors", "tokenizer.model", "book.txt", "data.jsonl",
                           "photo.png", "film.mp4"})
    Make(name, kPointer);
  fs::copy_file(Path("model/config.json"), Path("pointer/config.json"));
  ExpectRefused("generate --model " + Path("pointer") + " --ids 1,2", 1,
                {"pointer/model.safetensors", "Git LFS pointer"});
  ExpectRefused("inspect " + Path("pointer"), 1, {"Git LFS pointer"});
  ExpectRefused("tokenize --tokenizer " + Path("tokenizer.model"), 1,
                {"tokenizer.model", "Git LFS pointer"});
  for (const char* data : {"book.txt", "data.jsonl"})
    ExpectRefused("pack --tokenizer " + Path("model") + " --length 64 --input " + Path(data), 1,
                  {data, "Git LFS pointer"});
}

TEST_F(CheckpointsCliTest, PermissionDeniedIsTheReason) {
  const char* binary = std::getenv("LWM_BINARY");
  const std::string as_other = "setpriv --reuid=65534 --regid=65534 --clear-groups ";
  if (geteuid() != 0 ||
      std::system((as_other + binary + " --version >/dev/null 2>&1").c_str()) != 0)
    GTEST_SKIP() << "wants root, and a build that other users can start";
  MakeStories("model");
  fs::permissions(folder_.path(), fs::perms(0755));
  const auto run = [&] {
    return testing_support::RunLwmIn(
        [&](const std::string& command) { return as_other + command; },
        "generate --model " + Path("model") + " --ids 1,2 --max-new-tokens 1", "");
  };
  EXPECT_EQ(run().exit_code, 0);
  for (const char* file : {"model/model.safetensors", "model/config.json", "model"}) {
    const fs::perms before = fs::status(Path(file)).permissions();
    fs::permissions(Path(file), fs::perms::none);
    ExpectRefused(run(), 1, {file, "Permission denied"});
    fs::permissions(Path(file), before);
  }
}

TEST_F(CheckpointsCliTest, ModelsOfTheOtherKindAreNamed) {
  MakeStories("model");
  const std::string model = Path("model");
  const std::string vqgan = (GoldenFolder("vq_amused_5level") / "model").string();
  Make("photo.png", "not read");
  ExpectRefused("image --model " + model + " --prompt cat --output " + Path("x.png"), 2,
                {"text-only model"});
  ExpectRefused("generate --model " + model + " --image " + Path("photo.png"), 2,
                {"text-only model"});
  ExpectRefused("generate --model " + vqgan + " --ids 1,2", 2, {"a VQGAN", "not a language model"});
  ExpectRefused(
      "vqgan encode --model " + model + " " + Path("photo.png") + " --output " + Path("codes"), 1,
      {"a language model without a VQGAN"});
}

TEST_F(CheckpointsCliTest, FormsThatAreNotReadAreNamed) {
  MakeStories("model");
  Make("adapter/adapter_config.json",
       R"({"peft_type": "LORA", "base_model_name_or_path": "acme/tiny"})");
  Make("adapter/adapter_model.safetensors", "x");
  ExpectRefused("generate --model " + Path("adapter") + " --ids 1,2", 2, {"adapter", "LORA"});
  Json config = ReadJsonFile(Path("model/config.json"));
  config["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}};
  WriteFileAtomically(Path("model/config.json"), config.dump());
  ExpectRefused("convert --from " + Path("model") + " --to " + Path("out"), 2, {"GPTQ in 4 bits"});
  config.erase("quantization_config");
  config["model_type"] = "qwen2";
  config["architectures"] = Json::array({"Qwen2ForCausalLM"});
  WriteFileAtomically(Path("model/config.json"), config.dump());
  ExpectRefused("generate --model " + Path("model") + " --ids 1,2", 1,
                {"Qwen2ForCausalLM", "LlamaForCausalLM"});
}

TEST_F(CheckpointsCliTest, CutFilesSayHowMuchIsMissing) {
  MakeStories("model");
  const fs::path weights = Path("model/model.safetensors");
  fs::resize_file(weights, fs::file_size(weights) - 1000);
  ExpectRefused("generate --model " + Path("model") + " --ids 1,2", 1,
                {"model.safetensors", "truncated: 1000 of", "download is incomplete"});
}

}  // namespace
}  // namespace lwm
