#pragma once

#include <cstddef>
#include <cstdint>

#include "lwm/kernels/conv/winograd.h"

namespace lwm::kernels {

// The transforms of Winograd's F(4x4, 3x3) on bf16 images: a 3x3 convolution of stride 1 with a
// border of one zero pixel becomes matrix products over tiles of 4 x 4 outputs. A plain convolution
// takes 36 products, 4 times fewer multiplications than the definition. After repeating each pixel
// to 2 x 2 it takes 25, 5.76 times fewer: at the interpolation point -1 a repeated image is always
// zero, so products of that point are left out. Sources: Lavin and Gray 2016, "Fast Algorithms for
// Convolutional Neural Networks"; Barabasz and others 2020, "Error Analysis and Improving the
// Accuracy of Winograd Convolution", on the choice of points.
//
// Images are bf16 (their bits) [N,H,W,C] with channels last, arithmetic is f32. Each image of
// outputs has ceil(height / 4) x ceil(width / 4) tiles, numbered row by row, images after each
// other. Transformed inputs and products lie in planes [tiles, C], `plane` floats apart.
struct Winograd4Grid {
  size_t height, width;  // of one input image, pixels, >= 1
  bool doubles;          // whether its pixels are repeated to 2 x 2 first

  size_t out_height() const { return doubles ? 2 * height : height; }
  size_t out_width() const { return doubles ? 2 * width : width; }
  size_t tiles_across() const { return (out_width() + 3) / 4; }
  size_t tiles_per_image() const { return (out_height() + 3) / 4 * tiles_across(); }

  size_t planes() const { return doubles ? 16 : 36; }    // of transformed inputs
  size_t products() const { return doubles ? 25 : 36; }  // planes of products
  // The plane of inputs that product k takes. When doubling, products 2 and 3 of each five take the
  // same plane: the points i and -i see the same pixels.
  size_t plane_of(size_t k) const {
    return doubles ? (k / 5 - k / 15) * 4 + (k % 5 - k % 5 / 3) : k;
  }
};

constexpr size_t kWinograd4Panel = 32;  // output channels that weights and products keep together
constexpr size_t kMostWinograd4Products = 36;

// Transforms the inputs of the tiles, border included.
//
//   x_NHWC   in   all images
//   zeros_C  in   [channels] zeros, the border
//   v_KTC    out  planes() planes [tiles, channels]
//
// Domain: any channels and alignment. Threads: any, on disjoint outputs.
void Winograd4Input(const Winograd4Grid& grid, const uint16_t* x_NHWC, const uint16_t* zeros_C,
                    size_t channels, const WinogradTiles& tiles, float* v_KTC) noexcept;

// Computes one panel of weights: the products() matrices [I, 32] by which v is multiplied, as
// 16-bit integers with a scale for each product and output channel. An output channel with a weight
// that is not finite gets scales of NaN.
//
//   w_9IO    in   f32 [3,3,in,stride]; its first 32 columns are the panel
//   u_KI32   out  i16 [products(),in,32]; weight = u * scale
//   scale_K32  out  f32 [products(),32]
//
// Accuracy: each within scale / 2, at most 1.6e-5 of the largest of its product and channel.
void Winograd4Weights(const Winograd4Grid& grid, const float* w_9IO, size_t in, size_t stride,
                      int16_t* u_KI32, float* scale_K32) noexcept;

// The output channels of one panel, as Winograd4Output writes them.
struct Winograd4Result {
  size_t channels;                // at most 32
  size_t pixel;                   // numbers from one pixel to the next: all channels of the image
  const float* bias_C;            // added to every pixel
  const uint16_t* residual_NHWC;  // added to the result; null = nothing; may be y_NHWC
  uint16_t* y_NHWC;               // rounded once, to nearest even
};

// Computes the outputs of the tiles from products m_KT32, products() planes [tiles, 32].
void Winograd4Output(const Winograd4Grid& grid, const float* m_KT32, const WinogradTiles& tiles,
                     const Winograd4Result& result) noexcept;

}  // namespace lwm::kernels
