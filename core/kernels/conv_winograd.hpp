// Winograd's minimal filtering F(4x4, 3x3) for 3 x 3 convolutions of stride 1 in f32: 36 multiplications
// where the direct sum takes 144, at the price of larger rounding errors (docs/performance.md has both
// measured).
//
// An output tile of 4 x 4 pixels is y = Aᵀ[(G w Gᵀ) ∘ (Bᵀ x B)]A with x the 6 x 6 pixels it sees (Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). The matrices evaluate polynomials at 0,
// ±3/4, ±3/2 and infinity. The usual 0, ±1, ±2 lose about twice as many digits: no power of 3/4 or 3/2 that
// occurs is far from 1, and all of them are exact in binary.
//
// The gradients are the transposed map: the input gradient is a convolution with the turned kernel, and the
// weight gradient is Gᵀ[Σ_tiles (Bᵀ x B) ∘ (A gy Aᵀ)]G.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace goshawk::kernels::winograd {

/// A 3 x 3 convolution of stride 1 over a batch.
struct Problem {
  std::int64_t images = 0;
  std::int64_t rows = 0, columns = 0, channels = 0;  ///< of a source image
  std::int64_t out_rows = 0, out_columns = 0, out_channels = 0;
  std::int64_t pad_top = 0, pad_left = 0;  ///< zeros before the image
};

/// Whether the channels fill whole blocks and there are tiles enough to pay for transforming the weights.
bool worthwhile(const Problem& problem);

/// What is convolved with what; null pointers: nothing.
struct Pair {
  const float* a = nullptr;
  const float* b = nullptr;
};

/// What is done to a result before it is written: relu?(y + bias? + residual?) where the mask is not ≤ 0.
/// Null pointers: nothing.
struct Epilogue {
  const float* bias = nullptr;      ///< [out_channels]
  const float* residual = nullptr;  ///< of the result's shape; may be the result
  bool relu = false;
  const float* mask = nullptr;  ///< of the result's shape
};

/// A sum of one or two products of the same shapes. What several sums have in common is transformed once if
/// it stands at the same place in each of them, and two products share the transform of their sum.
struct Sum {
  std::array<Pair, 2> pairs;
  float* result = nullptr;
  Epilogue epilogue = {};
  std::int64_t terms() const { return pairs[1].a == nullptr ? 1 : 2; }
};

/// y [images, out_rows, out_columns, out_channels] from pairs of x and w [3, 3, channels, out_channels].
void forward(const Problem& problem, std::span<const Sum> sums);

/// Gradients with respect to x [images, out_rows, out_columns, out_channels] from pairs of gy [images, rows,
/// columns, channels] and w [3, 3, out_channels, channels]: `problem` describes the convolution of gy with
/// the turned kernel.
void input_grad(const Problem& problem, std::span<const Sum> sums);

/// Gradients with respect to w [3, 3, channels, out_channels] from pairs of x and gy [images, out_rows,
/// out_columns, out_channels]; all sums have the same number of pairs, and no epilogue.
void weight_grad(const Problem& problem, std::span<const Sum> sums);

}  // namespace goshawk::kernels::winograd
