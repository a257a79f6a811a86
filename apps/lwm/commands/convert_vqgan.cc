#include "commands/convert_vqgan.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>

#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/io/tensor_source.h"
#include "lwm/io/unwrapped_source.h"

namespace lwm::app {
namespace {

at::ScalarType TargetType(const VqganConversion& conversion,
                          const checkpoint::VqganSource& source) {
  if (conversion.dtype) return checkpoint::ToScalarType(*conversion.dtype);
  const at::ScalarType stored =
      source.Read(vision::VqganSpecs(source.config()).front()).scalar_type();
  return stored == at::kDouble ? at::kFloat : stored;
}

}  // namespace

bool ConvertIfVqgan(const VqganConversion& conversion) {
  if (!checkpoint::IsVqgan(*io::Unwrapped(io::OpenTensorSource(conversion.from)))) return false;
  LWM_REQUIRE(conversion.format != "gguf", conversion.from,
              " is a VQGAN, which GGUF cannot hold; want --format diffusers or lwm-jax");
  LWM_REQUIRE(conversion.for_models_only.empty(), conversion.from, " is a VQGAN; ",
              conversion.for_models_only, " is for language models");
  const double start = MonotonicSeconds();
  const auto config =
      conversion.config ? std::optional<std::filesystem::path>(*conversion.config) : std::nullopt;
  const auto source = checkpoint::OpenVqgan(conversion.from, config);
  const at::ScalarType dtype = TargetType(conversion, *source);
  const bool as_pickle = conversion.format == "lwm-jax";
  if (as_pickle) {
    checkpoint::SaveVqganPickle(*source, conversion.to, dtype);
  } else {
    checkpoint::SaveVqganDiffusers(*source, conversion.to, dtype);
  }
  if (source->config().space_to_depth > 1)
    std::fprintf(stderr,
                 "note: space_to_depth %lld is this program's own; no other program can run this "
                 "VQGAN\n",
                 static_cast<long long>(source->config().space_to_depth));
  std::fprintf(stderr, "%s: VQGAN of %lld weights from %s to %s in %s\n", conversion.to.c_str(),
               static_cast<long long>(source->config().ParameterCount()),
               std::string(source->source().format()).c_str(), as_pickle ? "lwm-jax" : "diffusers",
               FormatDuration(MonotonicSeconds() - start).c_str());
  return true;
}

}  // namespace lwm::app
