// Per-target header: what the AMX kernels of attention share. Only for .cc files that are compiled
// for x86-64 Linux, between LWM_AMX_BEGIN and LWM_AMX_END.
#pragma once

#include "lwm/kernels/attention_bf16-inl.h"

// The functions between these are compiled for the instructions that AmxAvailable() asks for.
#define LWM_AMX_TARGET LWM_BF16_TARGET ",amx-tile,amx-bf16"
#if defined(__clang__)
#define LWM_AMX_BEGIN \
  LWM_PRAGMA(clang attribute push(__attribute__((target(LWM_AMX_TARGET))), apply_to = function))
#define LWM_AMX_END LWM_PRAGMA(clang attribute pop)
#else
#define LWM_AMX_BEGIN LWM_PRAGMA(GCC push_options) LWM_PRAGMA(GCC target(LWM_AMX_TARGET))
#define LWM_AMX_END LWM_PRAGMA(GCC pop_options)
#endif

LWM_AMX_BEGIN
namespace lwm::kernels {

// Tile registers 0 to 3 hold sums [2 x 2], 4 and 5 the left factor, 6 and 7 the right one.
class TileRegisters {
 public:
  TileRegisters() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    asm volatile("" ::"m"(config) : "memory");
    _tile_loadconfig(&config);
  }
  ~TileRegisters() { _tile_release(); }
};

// The stores before become visible to tile loads, which the compiler does not know to read memory.
inline void Fence() { asm volatile("" ::: "memory"); }

inline void ZeroSums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

inline void LoadSums(const float* c, ptrdiff_t row_floats) {
  const ptrdiff_t stride = row_floats * 4;
  _tile_loadd(0, c, stride);
  _tile_loadd(1, c + 16, stride);
  _tile_loadd(2, c + 16 * row_floats, stride);
  _tile_loadd(3, c + 16 * row_floats + 16, stride);
}

inline void StoreSums(float* c, ptrdiff_t row_floats) {
  const ptrdiff_t stride = row_floats * 4;
  _tile_stored(0, c, stride);
  _tile_stored(1, c + 16, stride);
  _tile_stored(2, c + 16 * row_floats, stride);
  _tile_stored(3, c + 16 * row_floats + 16, stride);
}

// sums [32 x 32] += a [32 x 32] b [32 x 32]; the second half of a and b lies a_next, b_next
// further.
inline void Multiply(const uint16_t* a, ptrdiff_t a_stride_bytes, ptrdiff_t a_next,
                     const uint16_t* b, ptrdiff_t b_next) {
  _tile_loadd(6, b, 64);
  _tile_loadd(4, a, a_stride_bytes);
  _tile_loadd(7, b + b_next, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(5, a + a_next, a_stride_bytes);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

}  // namespace lwm::kernels
LWM_AMX_END
