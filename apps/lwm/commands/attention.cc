// lwm attention: exact attention over the tensors of a file, on all ranks.
#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "command.h"
#include "commands.h"
#include "flags/model_flags.h"
#include "lwm/base/error.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/ops/attention/whole.h"

namespace lwm::app {
namespace {

struct AttentionFlags {
  RunFlags run;
  std::string input, output;
  bool causal = true, backward = false;
  std::optional<double> scale;
  int64_t q_offset = 0;
};

at::Tensor Find(const std::map<std::string, at::Tensor>& tensors, const std::string& name,
                const std::string& file) {
  const auto found = tensors.find(name);
  LWM_REQUIRE(found != tensors.end(), file, ": there is no tensor '", name, "'");
  return found->second;
}

ops::WholeAttention ReadProblem(const AttentionFlags& flags) {
  const auto tensors = checkpoint::LoadTensors(flags.input);
  const at::ScalarType dtype = ScalarTypeOf(flags.run);
  const auto find = [&](const char* name) {
    const at::Tensor x = Find(tensors, name, flags.input);
    LWM_REQUIRE(x.is_floating_point(), flags.input, ": '", name, "' is ", x.scalar_type(),
                "; want f32 or bf16");
    return x.to(dtype);
  };
  ops::WholeAttention problem;
  problem.q_BHTK = find("q");
  problem.k_BGSK = find("k");
  problem.v_BGSK = find("v");
  if (tensors.contains("segment_ids")) problem.segment_BS = tensors.at("segment_ids");
  if (flags.backward) problem.dout_BHTK = find("dout");
  problem.causal = flags.causal;
  problem.offset = flags.q_offset;
  LWM_REQUIRE(problem.q_BHTK.dim() == 4, flags.input, ": want q [B,H,T,K], got ",
              problem.q_BHTK.sizes());
  problem.scale = flags.scale.value_or(1 / std::sqrt(static_cast<double>(problem.q_BHTK.size(3))));
  return problem;
}

void RunAttention(const AttentionFlags& flags) {
  RunContext context(flags.run);
  const ops::WholeAttentionResult result = ops::AttendWhole(ReadProblem(flags), &context.world());
  if (!context.is_root()) return;
  checkpoint::NamedTensors tensors{{"out", result.out_BHTK}, {"lse", result.lse_BHT}};
  if (flags.backward) {
    tensors.insert(tensors.end(),
                   {{"dq", result.dq_BHTK}, {"dk", result.dk_BGSK}, {"dv", result.dv_BGSK}});
  }
  checkpoint::SaveTensors(flags.output, tensors);
}

}  // namespace

void AddAttention(CLI::App& command) {
  auto flags = std::make_shared<AttentionFlags>();
  command
      .add_option("-i,--input", flags->input,
                  "safetensors: q [B,H,T,K], k and v [B,G,S,K]; optional segment_ids [B,S], dout")
      ->required();
  command.add_option("-o,--output", flags->output, "safetensors: out, lse; dq, dk, dv (all f32)")
      ->required();
  command.add_option("--causal", flags->causal, "a query sees no later key")->capture_default_str();
  command.add_flag("--backward", flags->backward, "gradients for the tensor dout, too");
  command.add_option("--scale", flags->scale, "of the scores (default 1 / sqrt(K))");
  command.add_option("--q-offset", flags->q_offset, "absolute position of query 0")
      ->capture_default_str();
  AddRunFlags(command, flags->run);
  AddExamples(command,
              "  lwm attention --input qkv.safetensors --output out.safetensors\n"
              "  mpirun -np 4 lwm attention --input qkv.safetensors --output grads.safetensors "
              "--backward --dtype f32");
  command.callback([flags] { RunAttention(*flags); });
}

}  // namespace lwm::app
