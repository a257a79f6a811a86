// The attention cases of tests/golden in this process: attn_* hold inputs and f64 results in one
// file, ring/* the same in [B,T,H,K].
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/ops/attention/whole.h"
#include "lwm/testing/error_of.h"

namespace lwm {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

std::filesystem::path GoldenFolder() {
  const char* source = std::getenv("LWM_SOURCE_DIR");
  return std::filesystem::path(source ? source : ".") / "tests" / "golden";
}

std::vector<std::filesystem::path> Sorted(const std::filesystem::path& folder,
                                          const std::string& prefix, const std::string& suffix) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(prefix) && name.ends_with(suffix)) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Largest difference over the largest entry; entries that are not finite must agree.
double RelativeError(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor finite = want.isfinite();
  EXPECT_TRUE(got.isfinite().equal(finite));
  const at::Tensor w = want.to(at::kDouble).masked_fill(~finite, 0);
  const at::Tensor g = got.to(at::kDouble).masked_fill(~finite, 0);
  return ((g - w).abs().max() / w.abs().max().clamp_min(1e-30)).item<double>();
}

void ExpectResult(const std::string& name, const ops::WholeAttentionResult& got,
                  const Tensors& want, const at::Tensor& row_valid_BT, double bound) {
  const auto check = [&](const char* tensor, at::Tensor actual, at::Tensor expected) {
    if (row_valid_BT.defined() && actual.size(2) == row_valid_BT.size(1) && tensor[1] != 'k' &&
        tensor[1] != 'v') {
      at::Tensor hidden = row_valid_BT.eq(0).unsqueeze(1);
      if (actual.dim() == 4) hidden = hidden.unsqueeze(-1);
      actual = actual.masked_fill(hidden, 0);
      expected = expected.masked_fill(hidden, 0);
    }
    EXPECT_LE(RelativeError(actual, expected), bound) << name << " " << tensor;
  };
  check("out", got.out_BHTK, want.at("out"));
  check("lse", got.lse_BHT, want.at("lse"));
  check("dq", got.dq_BHTK, want.at("dq"));
  check("dk", got.dk_BGSK, want.at("dk"));
  check("dv", got.dv_BGSK, want.at("dv"));
}

TEST(AttentionGolden, CasesOfPyTorchHoldOnOneRank) {
  const auto cases = Sorted(GoldenFolder(), "attn_", "");
  ASSERT_GE(cases.size(), 8u);
  for (const auto& folder : cases) {
    const Json meta = ReadJsonFile(folder / "case.json");
    const Tensors tensors = checkpoint::LoadTensors(folder / "golden.safetensors");
    const bool causal = JsonGet<std::string>(meta, "mask", folder) == "causal";
    const ops::WholeAttention problem{
        tensors.at("q"),
        tensors.at("k"),
        tensors.at("v"),
        tensors.contains("segment_ids") ? tensors.at("segment_ids") : at::Tensor(),
        tensors.at("dout"),
        causal,
        JsonGet<double>(meta, "scale", folder),
        JsonGet<int64_t>(meta, "q_offset", folder)};
    const std::string name = folder.filename();
    ExpectResult(name, ops::AttendWhole(problem, nullptr), tensors, {},
                 name.find("big") != std::string::npos ? 4e-5 : 5e-6);
  }
}

ops::WholeAttention RingProblem(const Tensors& tensors) {
  const auto heads_first = [&](const char* name) { return tensors.at(name).transpose(1, 2); };
  ops::WholeAttention problem{
      heads_first("q"), heads_first("k"), heads_first("v"), {}, heads_first("dout")};
  if (tensors.contains("segment_ids")) problem.segment_BS = tensors.at("segment_ids");
  if (tensors.contains("key_mask")) problem.segment_BS = tensors.at("key_mask");
  problem.scale = 1 / std::sqrt(static_cast<double>(problem.q_BHTK.size(3)));
  return problem;
}

TEST(AttentionGolden, CasesOfThePublishedRingHoldOnOneRank) {
  int tried = 0;
  for (const auto& file : Sorted(GoldenFolder() / "ring", "", ".safetensors")) {
    const std::string name = file.stem();
    const Tensors tensors = checkpoint::LoadTensors(file);
    if (name == "segments_recur") {
      EXPECT_ERROR(ops::AttendWhole(RingProblem(tensors), nullptr), kInvalidArgument);
      continue;
    }
    Tensors want;
    for (const char* tensor : {"out", "dq", "dk", "dv"})
      want[tensor] = tensors.at(std::string("ref64_") + tensor).transpose(1, 2);
    want["lse"] = tensors.at("ref64_lse");
    ExpectResult(name, ops::AttendWhole(RingProblem(tensors), nullptr), want,
                 tensors.at("row_valid"), name == "large_scores" ? 4e-5 : 5e-6);
    ++tried;
  }
  EXPECT_GE(tried, 4);
}

}  // namespace
}  // namespace lwm
