#include "lwm/kernels/matmul_tile.h"

#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <utility>

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

dnnl::matmul::primitive_desc Describe(const TileMatmulShape& shape) {
  const memory::desc a = Plain(shape.m, shape.k, DataType(shape.type));
  const memory::desc b({shape.k, shape.n}, DataType(shape.type), memory::format_tag::any);
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

}  // namespace

struct TileMatmul::Impl {
  explicit Impl(const TileMatmulShape& tile_shape)
      : shape(tile_shape),
        description(Describe(tile_shape)),
        product(description),
        stream(Cpu()),
        a(description.src_desc(), Cpu(), nullptr),
        b(description.weights_desc(), Cpu(), nullptr),
        c(description.dst_desc(), Cpu(), nullptr),
        arguments{{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}} {
    for (const bool transposed : {false, true}) {
      plain_b[transposed] =
          memory(Plain(shape.k, shape.n, DataType(shape.type), transposed), Cpu(), nullptr);
      packing[transposed] = dnnl::reorder(plain_b[transposed], b);
    }
  }

  TileMatmulShape shape;
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
  memory& plain = impl_->plain_b[transposed];
  plain.set_data_handle(const_cast<void*>(b));
  impl_->b.set_data_handle(packed_B);
  impl_->packing[transposed].execute(impl_->stream, plain, impl_->b);
}

void TileMatmul::Run(const void* a_MK, const void* packed_B, float* c_MN) {
  impl_->a.set_data_handle(const_cast<void*>(a_MK));
  impl_->b.set_data_handle(const_cast<void*>(packed_B));
  impl_->c.set_data_handle(c_MN);
  impl_->product.execute(impl_->stream, impl_->arguments);
}

TileMatmul& ThreadTileMatmul(const TileMatmulShape& shape) {
  thread_local std::map<TileMatmulShape, std::unique_ptr<TileMatmul>> tiles;
  std::unique_ptr<TileMatmul>& tile = tiles[shape];
  if (!tile) tile = std::make_unique<TileMatmul>(shape);
  return *tile;
}

}  // namespace lwm::kernels
