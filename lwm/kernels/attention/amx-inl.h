// Per-target header shared by the AMX kernels: tile registers and 32 x 32 products. Only for .cc
// files that are compiled for x86-64 Linux, between LWM_AMX_BEGIN and LWM_AMX_END.
#pragma once

#include "lwm/kernels/attention/bf16-inl.h"

// Functions between these are compiled for the instructions that AmxAvailable() checks.
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

// AMX has eight tile registers of 16 rows x 64 bytes. Registers 0 to 3 hold f32 sums of 2 x 2 tiles
// (32 x 32 numbers), 4 and 5 the left factor, 6 and 7 the right one. So every loaded register
// enters two products: one load a product, where a single 16 x 16 sum would need two.
//
// All registers have the full size, so kernels pad their operands instead of configuring again. The
// configuration belongs to the thread, so every call sets it. Its release returns the tiles to
// their initial state, which a context switch need not save.
class TileRegisters {
 public:
  TileRegisters() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    // The intrinsic does not tell every compiler that it reads all of config: store it first.
    asm volatile("" ::"m"(config) : "memory");
    _tile_loadconfig(&config);
  }
  ~TileRegisters() { _tile_release(); }
};

// Keeps the compiler from moving ordinary loads and stores across tile loads and stores, which it
// may not know to access memory. Emits no instruction.
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

// sums [32 x 32] += a [32 x 32] b [32 x 32]; the second halves of a and b lie a_next, b_next
// numbers further. b is in pairs: TDPBF16PS multiplies two bf16 numbers of a row of a with two rows
// of b at a time, and wants those two side by side in each column (Intel SDM, TDPBF16PS).
// Loads stand between products, so that a product starts once its own operands are there.
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
