#pragma once

#include <cstddef>

namespace lwm::kernels {

// The transforms of Winograd's F(2x2, 3x3): a 3x3 convolution of stride 1 with a border of one zero
// pixel becomes 16 matrix products over tiles of 2 x 2 outputs, with 2.25 times fewer
// multiplications than the definition. Source: Lavin and Gray 2016, "Fast Algorithms for
// Convolutional Neural Networks", section 4.1.
//
// Images are f32 [N,H,W,C] with channels last. Each has ceil(H/2) x ceil(W/2) tiles, numbered row
// by row, images after each other. Products lie in 16 planes [tiles, C], `plane` floats apart.
struct WinogradGrid {
  size_t height, width;  // of one image, pixels, >= 1

  size_t tiles_across() const { return (width + 1) / 2; }
  size_t tiles_per_image() const { return (height + 1) / 2 * tiles_across(); }
};

constexpr size_t kWinogradPlanes = 16;

// A run of tiles and the distance of their planes.
struct WinogradTiles {
  size_t first, count;
  size_t plane;  // floats from one plane to the next
};

// Transforms the inputs of the tiles: 4 x 4 pixels each, border included.
//
//   x_NHWC   in   all images
//   zeros_C  in   [channels] zeros, the border
//   v_KTC    out  16 planes [tiles, channels]
//
// Domain: any channels and alignment. Cost: memory-bound. Threads: any, on disjoint outputs.
void WinogradInput(const WinogradGrid& grid, const float* x_NHWC, const float* zeros_C,
                   size_t channels, const WinogradTiles& tiles, float* v_KTC) noexcept;

// Computes the outputs of those tiles from the products of WinogradInput's planes with the 16
// matrices [C_in, C_out] of the kernel. With w_OI[i][j] the 3x3 kernel, matrix (a, b) is
// (g w g^T)[a][b], g = {{1,0,0}, {.5,.5,.5}, {.5,-.5,.5}, {0,0,1}}.
//
//   m_KTC          in   16 planes [tiles, channels]
//   bias_C         in   added to every pixel
//   residual_NHWC  in   added to the result; null = nothing; may be y_NHWC
//   y_NHWC         out  the pixels of these tiles
void WinogradOutput(const WinogradGrid& grid, const float* m_KTC, const float* bias_C,
                    const float* residual_NHWC, size_t channels, const WinogradTiles& tiles,
                    float* y_NHWC) noexcept;

// Gradients, for training. The gradient of x is the convolution of dy with the kernel turned by
// half a turn, from O to I channels.

// The 16 matrices [O, I] of a kernel w_OHWI [O,3,3,I]; with `turned` of the turned kernel.
void WinogradWeights(const float* w_OHWI, bool turned, size_t out, size_t in, size_t plane,
                     float* u_KOI) noexcept;

// Gradients of the products from those of the outputs, the transpose of WinogradOutput: 16 planes
// [tiles, channels]. `zeros_C` [channels]: zeros for pixels of a tile beyond the image.
void WinogradOutputGradient(const WinogradGrid& grid, const float* dy_NHWC, const float* zeros_C,
                            size_t channels, const WinogradTiles& tiles, float* dm_KTC) noexcept;

// Gradient of w_OHWI from the gradient of the 16 matrices, the transpose of WinogradWeights.
void WinogradWeightsGradient(const float* du_KOI, size_t plane, size_t out, size_t in,
                             float* dw_OHWI) noexcept;

}  // namespace lwm::kernels
