#include "lwm/kernels/matmul_tile.h"

#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/bf16.h"
#include "lwm/kernels/libraries.h"

namespace lwm::kernels {
namespace {

using dnnl::memory;

const dnnl::engine& Cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

memory::data_type DataType(TileType type) {
  return type == TileType::kF32 ? memory::data_type::f32 : memory::data_type::bf16;
}

memory::desc Plain(int rows, int cols, memory::data_type type, bool transposed = false) {
  return memory::desc({rows, cols}, type,
                      transposed ? memory::dims{1, rows} : memory::dims{cols, 1});
}

// B's layout is `any`: oneDNN picks the blocks that its instructions read, and Pack reorders into
// them once. A and C stay row-major, since the kernels around the product read and write them.
dnnl::matmul::primitive_desc Describe(const TileMatmulShape& shape, memory::data_type type) {
  const memory::desc a = Plain(shape.m, shape.k, type);
  const memory::desc b({shape.k, shape.n}, type, memory::format_tag::any);
  const memory::desc c = Plain(shape.m, shape.n, memory::data_type::f32);
  dnnl::primitive_attr attributes;
  if (shape.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul::primitive_desc(Cpu(), a, b, c, attributes);
#else
  return dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), attributes, Cpu());
#endif
}

size_t Count(int rows, int cols) { return static_cast<size_t>(rows) * static_cast<size_t>(cols); }

// Without bf16 instructions oneDNN 2.6 has no product that adds to C: both sides become f32 here,
// which is exact.
void Widen(const void* bf16_N, size_t count, float* f32_N) {
  const auto* from = static_cast<const uint16_t*>(bf16_N);
  for (size_t i = 0; i < count; ++i) f32_N[i] = FloatFromBf16(from[i]);
}

}  // namespace

// By oneDNN's effective instruction set, which follows ONEDNN_MAX_CPU_ISA, not by CPUID.
bool HasBf16Products() {
  static const bool has = [] {
    constexpr auto kBf16 = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
    return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kBf16) == kBf16;
  }();
  return has;
}

// Primitive, memory objects and arguments are made once per shape; a call only sets the pointers.
// Making a primitive generates its code, which takes longer than a small product.
struct TileMatmul::Impl {
  explicit Impl(const TileMatmulShape& tile_shape)
      : shape(tile_shape),
        widens(shape.type == TileType::kBF16 && !HasBf16Products()),
        type(widens ? memory::data_type::f32 : DataType(shape.type)),
        description(Describe(tile_shape, type)),
        product(description),
        stream(Cpu()),
        a(description.src_desc(), Cpu(), nullptr),
        b(description.weights_desc(), Cpu(), nullptr),
        c(description.dst_desc(), Cpu(), nullptr),
        arguments{{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}} {
    // Pack reads [k,n] or [n,k]: the same matrix by other strides, so a reorder transposes on its
    // way.
    for (const bool transposed : {false, true}) {
      plain_b[transposed] = memory(Plain(shape.k, shape.n, type, transposed), Cpu(), nullptr);
      packing[transposed] = dnnl::reorder(plain_b[transposed], b);
    }
    if (!widens) return;
    wide_a_MK = MakeAlignedBuffer<float>(Count(shape.m, shape.k));
    wide_b_KN = MakeAlignedBuffer<float>(Count(shape.k, shape.n));
  }

  TileMatmulShape shape;
  bool widens;  // operands, from bf16 to f32
  memory::data_type type;
  AlignedBuffer<float> wide_a_MK, wide_b_KN;
  dnnl::matmul::primitive_desc description;
  dnnl::matmul product;
  dnnl::stream stream;
  memory a, b, c;
  std::unordered_map<int, memory> arguments;
  memory plain_b[2];
  dnnl::reorder packing[2];
};

TileMatmul::TileMatmul(const TileMatmulShape& shape) : impl_(std::make_unique<Impl>(shape)) {}
TileMatmul::~TileMatmul() = default;

size_t TileMatmul::packed_bytes() const { return impl_->b.get_desc().get_size(); }

void TileMatmul::Pack(const void* b, bool transposed, void* packed_B) {
  if (impl_->widens) {
    Widen(b, Count(impl_->shape.k, impl_->shape.n), impl_->wide_b_KN.get());
    b = impl_->wide_b_KN.get();
  }
  // set_data_handle takes no const pointer; a reorder and a product only read these.
  memory& plain = impl_->plain_b[transposed];
  plain.set_data_handle(const_cast<void*>(b));
  impl_->b.set_data_handle(packed_B);
  impl_->packing[transposed].execute(impl_->stream, plain, impl_->b);
}

void TileMatmul::Run(const void* a_MK, const void* packed_B, float* c_MN) {
  if (impl_->widens) {
    Widen(a_MK, Count(impl_->shape.m, impl_->shape.k), impl_->wide_a_MK.get());
    a_MK = impl_->wide_a_MK.get();
  }
  impl_->a.set_data_handle(const_cast<void*>(a_MK));
  impl_->b.set_data_handle(const_cast<void*>(packed_B));
  impl_->c.set_data_handle(c_MN);
  impl_->product.execute(impl_->stream, impl_->arguments);
}

// Never dropped: shapes are few, and AttentionTile objects keep references.
TileMatmul& ThreadTileMatmul(const TileMatmulShape& shape) {
  thread_local std::map<TileMatmulShape, std::unique_ptr<TileMatmul>> tiles;
  std::unique_ptr<TileMatmul>& tile = tiles[shape];
  if (!tile) tile = std::make_unique<TileMatmul>(shape);
  return *tile;
}

std::string MatmulLibrary() {
  // Newest first: every set of bits contains those of older ones.
  const std::pair<dnnl_cpu_isa_t, const char*> sets[] = {
      {dnnl_cpu_isa_avx512_core_amx, "AMX"},
      {dnnl_cpu_isa_avx512_core_bf16, "AVX-512 BF16"},
      {dnnl_cpu_isa_avx512_core_vnni, "AVX-512 VNNI"},
      {dnnl_cpu_isa_avx512_core, "AVX-512"},
      {dnnl_cpu_isa_avx2, "AVX2"},
      {dnnl_cpu_isa_sse41, "SSE4.1"},
  };
  const auto used = static_cast<unsigned>(dnnl_get_effective_cpu_isa());  // a set of bits
  const char* newest = "no vector instructions";
  for (const auto& [bits, name] : sets) {
    if ((used & static_cast<unsigned>(bits)) != static_cast<unsigned>(bits)) continue;
    newest = name;
    break;
  }
  const dnnl_version_t* version = dnnl_version();
  return Cat("oneDNN ", version->major, ".", version->minor, ".", version->patch, ", ", newest);
}

}  // namespace lwm::kernels
