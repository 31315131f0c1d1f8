// The vector kernels behind conv.cpp: descriptions of the work, and the functions that do one task of it.
//
// Two kernels serve all three convolutions. The *tap convolution* computes
//   out[q, p] = sum over taps t, channels c of source[q*row_step + t.row, p + t.column][c] * weights[t][c][:]
// for a block of pixels p and output channels at a time, all sums held in registers. The forward pass is one
// such sum. The input gradient of stride s is s*s of them (one for each position of an input pixel relative
// to the stride), each over those kernel elements that reach its pixels. The *weight gradient* holds a block
// of weights in registers and walks over the pixels.
#pragma once

#include <cstdint>
#include <vector>

namespace goshawk::kernels::simd {

/// Channels of a source pixel that lie side by side in the scratch image:
/// [block][row][column][kChannelBlock]. A power of two that makes the distance between pixels a constant in
/// the address of every load.
inline constexpr std::int64_t kChannelBlock = 16;

/// The instruction set in use: what the layout of packed weights depends on.
struct Target {
  std::int64_t lanes = 0;          ///< elements in a vector
  std::int64_t block_vectors = 0;  ///< vectors of output channels in the widest register block
};

/// Vectors of output channels in the register block that begins where `left` of them are left, up to
/// `widest`. Packed weights lie in such blocks, one after the other.
inline std::int64_t block_vectors(std::int64_t left, std::int64_t widest) {
  return left >= widest ? widest : left > 1 ? 2 : 1;
}

/// The block that vector number `vector` of `all` is in. Two vectors from an even one on never lie in two.
struct VectorBlock {
  std::int64_t first = 0, vectors = 0;
};
inline VectorBlock block_of(std::int64_t vector, std::int64_t all, std::int64_t widest) {
  VectorBlock block{0, block_vectors(all, widest)};
  while (vector >= block.first + block.vectors) {
    block.first += block.vectors;
    block.vectors = block_vectors(all - block.first, widest);
  }
  return block;
}

/// One channel block of one kernel element.
struct Tap {
  std::int64_t offset = 0;  ///< elements from the scratch pixel (q*row_step, p) to the one that is multiplied
  std::int64_t channels = 0;  ///< at most kChannelBlock
  std::int64_t skip = 0;      ///< weights between those of this tap and those of the next one
};

/// A sum over taps for a grid of output pixels.
struct TapPhase {
  std::int64_t first_row = 0;  ///< destination row and column of output pixel (0, 0)
  std::int64_t first_column = 0;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<std::int64_t> kernel_rows;  ///< the source row of each, relative to the output row's first
  std::vector<Tap> taps;                  ///< kernel row by kernel row, the same number in each
  std::int64_t depth = 0;                 ///< sum of tap channels
  std::int64_t packed_weights = 0;        ///< where this phase's weights begin
};

/// A tap convolution of a batch of images.
struct TapConv {
  std::int64_t images = 0;
  std::int64_t source_rows = 0, source_columns = 0, source_channels = 0;
  /// More than 1: a scratch pixel holds the channels of so many neighbouring source pixels, and the next
  /// scratch pixel begins joined_step source pixels further. Images of few channels get longer sums per tap.
  std::int64_t joined_columns = 1, joined_step = 1;
  std::int64_t pad_top = 0, pad_left = 0;  ///< zeros before the image; negative crops
  std::int64_t row_step = 1, column_step = 1;
  /// Of every row_step rows (column_step columns) the first so many have taps; the others are not copied.
  std::int64_t used_rows = 1, used_columns = 1;
  std::int64_t task_rows = 0;     ///< output rows of one task
  std::int64_t scratch_rows = 0;  ///< source rows that task_rows output rows need, halo included
  /// Columns are stored by their remainder modulo column_step: column_step runs of scratch_columns each.
  std::int64_t scratch_columns = 0;
  std::int64_t target_rows = 0, target_columns = 0, target_channels = 0;
  std::int64_t target_row_step = 1, target_column_step = 1;
  std::vector<TapPhase> phases;
  bool add = false;  ///< to what the target holds
  /// The source is read where it lies instead of from a scratch: a 1 x 1 kernel, one phase, no padding,
  /// target steps 1.
  bool in_place = false;
};

/// A weight gradient over a batch of images.
struct WeightGrad {
  std::int64_t rows = 0, columns = 0, channels = 0;  ///< of the input image
  std::int64_t out_rows = 0, out_columns = 0, out_channels = 0;
  std::int64_t kernel_rows = 0, kernel_columns = 0;
  std::int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0;
  std::int64_t images = 0;
  std::int64_t group_rows = 0;      ///< output rows handled at once, few enough for the first-level cache
  std::int64_t row_groups = 0;      ///< per image
  std::int64_t group_images = 0;    ///< images handled at once; more than 1 only when row_groups is 1
  std::int64_t padded_outputs = 0;  ///< out_channels rounded up to whole vectors
};

Target target_f32();
Target target_f64();
/// The Highway target bits that were compiled and that this machine runs: what a test passes one by one to
/// hwy::SetSupportedTargetsForTest.
std::vector<std::int64_t> supported_targets();

/// Output rows [row_begin, row_end) of image number `image` of the batch, all phases; row_begin is a multiple
/// of task_rows and there are at most that many. The packed weights begin with what each channel's sum begins
/// with.
void tap_conv(const TapConv& conv, const float* source, const float* weights, float* target,
              std::int64_t image, std::int64_t row_begin, std::int64_t row_end);
void tap_conv(const TapConv& conv, const double* source, const double* weights, double* target,
              std::int64_t image, std::int64_t row_begin, std::int64_t row_end);

/// The products of the row groups [group_begin, group_end) of the whole batch, summed for part `part` of
/// `parts` of the weights and written to that part of sums [KH][KW*Ci][padded_outputs].
void weight_grad(const WeightGrad& grad, const float* x, const float* gy, float* sums,
                 std::int64_t group_begin, std::int64_t group_end, std::int64_t part, std::int64_t parts);
void weight_grad(const WeightGrad& grad, const double* x, const double* gy, double* sums,
                 std::int64_t group_begin, std::int64_t group_end, std::int64_t part, std::int64_t parts);

}  // namespace goshawk::kernels::simd
