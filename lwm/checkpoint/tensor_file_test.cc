#include "lwm/checkpoint/tensor_file.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/safetensors.h"
#include "lwm/io/safetensors_source.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::checkpoint {
namespace {

using testing_support::TemporaryFolder;

TEST(TensorFileTest, EveryDtypeAndLayoutComesBackEqual) {
  TemporaryFolder folder;
  const at::Tensor base = at::arange(24, at::kInt).reshape({4, 6}) - 7;
  NamedTensors saved = {{"view", base.t()},
                        {"scalar", at::scalar_tensor(3.5, at::kDouble)},
                        {"none", at::empty({0, 2})}};
  for (const at::ScalarType type : {at::kBool, at::kByte, at::kChar, at::kShort, at::kLong,
                                    at::kHalf, at::kBFloat16, at::kFloat, at::kDouble})
    saved.emplace_back(at::toString(type), base.to(type));
  SaveTensors(folder / "a.safetensors", saved);
  const auto loaded = LoadTensors(folder / "a.safetensors");
  ASSERT_EQ(loaded.size(), saved.size());
  for (const auto& [name, tensor] : saved) {
    EXPECT_EQ(loaded.at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(loaded.at(name), tensor)) << name;
  }
}

TEST(TensorFileTest, PiecesJoinToTheTensor) {
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{}, {0}, {70001}, {3, 40000}, {1000, 7, 11}, {5, 6}}) {
    const at::Tensor x = at::rand(shape);
    std::vector<at::Tensor> pieces;
    ForEachPiece(x, [&](const at::Tensor& piece) { pieces.push_back(piece); });
    EXPECT_EQ(pieces.size() > 1, x.numel() > 30000) << x.sizes();
    EXPECT_TRUE(at::equal(x.dim() == 0 ? pieces.at(0) : at::cat(pieces), x)) << x.sizes();
  }
  int64_t calls = 0;
  ForEachPiece(at::rand({300, 200}).t(), [&](const at::Tensor&) { ++calls; });
  EXPECT_EQ(calls, 1);
}

TEST(TensorFileTest, RowsOfATensorAreReadAlone) {
  TemporaryFolder folder;
  const at::Tensor x = at::arange(60, at::kFloat).reshape({5, 3, 4});
  SaveTensors(folder / "a.safetensors", {{"x", x}});
  const io::SafetensorsSource source(folder / "a.safetensors");
  EXPECT_TRUE(at::equal(ReadTensor(source, "x"), x));
  EXPECT_TRUE(at::equal(ReadTensorRows(source, "x", 2, 2), x.slice(0, 2, 4)));
  EXPECT_ERROR(ReadTensorRows(source, "x", 4, 2), kInternal);
}

TEST(TensorFileTest, ViewSharesTheFileAndOutlivesItsSource) {
  TemporaryFolder folder;
  const at::Tensor x = at::randn({300, 70}), odd = at::ones({1}, at::kByte);
  SaveTensors(folder / "a.safetensors", {{"x", x}, {"odd", odd}});
  std::shared_ptr<const io::TensorSource> source =
      std::make_shared<io::SafetensorsSource>(folder / "a.safetensors");
  const at::Tensor view = ViewTensor(source, "x");
  EXPECT_EQ(view.const_data_ptr(), source->View(source->IndexOf("x")).data());
  source.reset();
  EXPECT_TRUE(at::equal(view, x));
}

TEST(TensorFileTest, UnalignedTensorIsCopied) {
  TemporaryFolder folder;
  const float values[2] = {1.5f, -2};
  io::SafetensorsWriter writer(folder / "a.safetensors",
                               {{"byte", io::DType::kU8, {1}}, {"x", io::DType::kF32, {2}}});
  writer.Write("byte", std::as_bytes(std::span("b", 1)));
  writer.Write("x", std::as_bytes(std::span(values)));
  writer.Finish();
  const auto source = std::make_shared<io::SafetensorsSource>(folder / "a.safetensors");
  EXPECT_TRUE(source->View(source->IndexOf("x")).empty());
  EXPECT_TRUE(at::equal(ViewTensor(source, "x"), at::tensor({1.5f, -2.0f})));
}

TEST(TensorFileTest, TransposedPiecesJoinToTheTranspose) {
  for (const auto& [from, to] : {std::pair(at::kBFloat16, at::kBFloat16),
                                 {at::kBFloat16, at::kFloat},
                                 {at::kFloat, at::kHalf},
                                 {at::kFloat, at::kFloat}})
    for (const auto& [rows, cols] :
         {std::pair(1, 1), {1, 70}, {33, 1}, {31, 65}, {600, 30}, {2003, 150}}) {
      const at::Tensor matrix = at::randn({rows, cols}).to(from);
      std::vector<at::Tensor> pieces;
      ForEachTransposedPiece(matrix, to, [&](const at::Tensor& piece) {
        EXPECT_TRUE(piece.is_contiguous());
        pieces.push_back(piece.clone());
      });
      EXPECT_EQ(pieces.size(), static_cast<size_t>((cols + 31) / 32));
      EXPECT_TRUE(at::equal(at::cat(pieces), matrix.t().to(to))) << rows << " x " << cols;
    }
}

TEST(TensorFileTest, ShardsAreReadThroughTheIndexAndMissingOnesNamed) {
  TemporaryFolder folder;
  SaveTensors(folder / "a.safetensors", {{"x", at::ones({3})}});
  SaveTensors(folder / "b.safetensors", {{"y", at::zeros({2})}});
  const auto index = folder / "model.safetensors.index.json";
  WriteFileAtomically(index, R"({"weight_map":{"y":"b.safetensors","x":"a.safetensors"}})");
  const io::SafetensorsSource source(index);
  EXPECT_TRUE(at::equal(ReadTensor(source, "x"), at::ones({3})));
  EXPECT_TRUE(at::equal(ReadTensor(source, "y"), at::zeros({2})));

  const auto error_of = [&](const std::string& map) -> std::string {
    WriteFileAtomically(index, "{\"weight_map\":" + map + "}");
    try {
      io::SafetensorsSource opened(index);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  EXPECT_NE(error_of(R"({"x":"c.safetensors"})").find("c.safetensors"), std::string::npos);
  EXPECT_NE(error_of(R"({"z":"a.safetensors"})").find("tensor z"), std::string::npos);
  EXPECT_NE(error_of(R"({"x":"../a.safetensors"})").find("plain file name"), std::string::npos);
  std::filesystem::resize_file(folder / "b.safetensors", 90);
  EXPECT_NE(error_of(R"({"x":"a.safetensors","y":"b.safetensors"})").find("truncated"),
            std::string::npos);
}

}  // namespace
}  // namespace lwm::checkpoint
