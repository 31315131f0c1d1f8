// Vector kernels of the weight gradient.
#include <algorithm>
#include <cstring>

#include "core/kernels/conv_scratch.hpp"
#include "core/kernels/conv_simd.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/conv_weight_grad.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>
// clang-format on

#include "core/kernels/conv_block-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels::simd {
namespace HWY_NAMESPACE {

// An input with fewer channels has register blocks that span several kernel columns: blocks within one would
// have too few rows to hide the latency of a multiply-add.
constexpr Index kMinColumnChannels = 16;

/// The outputs [begin, end) whose input for one place of a kernel is in the image.
struct Range {
  Index begin, end;
};
Range outputs_inside(Index first_input, Index stride, Index inputs, Index outputs) {
  const Index begin = first_input < 0 ? (stride - 1 - first_input) / stride : 0;
  const Index end = inputs > first_input ? (inputs - first_input + stride - 1) / stride : 0;
  return {std::min(begin, outputs), std::max(std::min(end, outputs), std::min(begin, outputs))};
}

/// Copies the input rows [row, row + rows) of one image, as far as there are such, with a border of zeros
/// left and right; the others are not touched.
template <class T>
void pad_columns(const WeightGrad& grad, const T* image, Index row, Index rows, Index padded_columns, T* to) {
  const Index left = std::min(grad.pad_w, padded_columns) * grad.channels;
  const Index inside = std::min(grad.columns * grad.channels, padded_columns * grad.channels - left);
  const Index begin = std::max(row, Index{0}), end = std::min(row + rows, grad.rows);
  for (Index y = begin; y < end; ++y) {
    T* const to_row = to + (y - row) * padded_columns * grad.channels;
    set_zero(to_row, to_row + left);
    std::memcpy(to_row + left, image + y * grad.columns * grad.channels,
                static_cast<size_t>(inside) * sizeof(T));
    set_zero(to_row + left + inside, to_row + padded_columns * grad.channels);
  }
}

/// Copies pixels with their channels filled up by zeros to whole vectors.
template <class T>
void pad_channels(const T* from, Index pixels, Index channels, Index padded_channels, T* to) {
  // Half a vector is common (8 channels); the rest goes number by number.
  if constexpr (1 < kLanes<T>) {
    if (2 * channels == kLanes<T> && padded_channels == kLanes<T>) {
      const hn::CappedTag<T, static_cast<size_t>(kLanes<T> / 2)> half;
      for (Index p = 0; p < pixels; ++p, from += channels, to += padded_channels) {
        hn::StoreU(hn::LoadU(half, from), half, to);
        hn::StoreU(hn::Zero(half), half, to + channels);
      }
      return;
    }
  }
  for (Index p = 0; p < pixels; ++p, from += channels, to += padded_channels) {
    std::copy(from, from + channels, to);
    std::fill(to + channels, to + padded_channels, T{0});
  }
}

template <class T>
void weight_grad_groups(const WeightGrad& grad, const T* x, const T* gy, T* sums, Index group_begin,
                        Index group_end, Index part, Index parts) {
  const Index run = grad.kernel_columns * grad.channels;  // weights of a kernel row, contiguous in x as well
  const Index padded_columns = (grad.out_columns - 1) * grad.stride_w + grad.kernel_columns;
  const Index image_size = grad.rows * grad.columns * grad.channels;
  const Index gy_row = grad.out_columns * grad.out_channels;
  // Where blocks stay within a kernel column, or there is no border beside the image, x is read where it
  // lies.
  const bool by_column = grad.pad_w > 0 && grad.channels >= kMinColumnChannels;
  const bool copy_x = grad.pad_w > 0 && !by_column;
  const Index units = by_column ? grad.kernel_columns : 1;  // per kernel row
  const Index unit = run / units;                           // weights in each

  struct Tiles {
    Index unit_blocks, first, of_part;
  };
  /// The register blocks that cover the weights of one block of output channels, and which of them are ours.
  const auto tiles = [&](size_t vectors) -> Tiles {
    const auto most = static_cast<Index>(max_rows(vectors));
    const Index unit_blocks = (unit + most - 1) / most;
    const Index all = grad.kernel_rows * units * unit_blocks;
    return {unit_blocks, all * part / parts, all * (part + 1) / parts - all * part / parts};
  };

  Index images = 0;
  for (Index group = group_begin; group < group_end; group += images) {
    const Index image = group / grad.row_groups;
    const Index row = group % grad.row_groups * grad.group_rows;
    images = std::min(grad.group_images, group_end - group);
    GradPixels<T> pixels{};
    pixels.images = images;
    const Index rows = std::min(grad.group_rows, grad.out_rows - row);

    // The input of kernel row 0 and column 0 for the group's first output, as a distance since it may lie
    // outside of the image.
    const Index first_row = row * grad.stride_h - grad.pad_h;
    Index x_row = grad.columns * grad.channels;
    const T* x_begin = x + image * image_size;
    Index origin = first_row * x_row - grad.pad_w * grad.channels;
    pixels.x_image = image_size;
    if (copy_x) {
      const Index padded_rows = (rows - 1) * grad.stride_h + grad.kernel_rows;
      x_row = padded_columns * grad.channels;
      pixels.x_image = padded_rows * x_row;
      T* const scratch = task_scratch().image.get<T>(images * pixels.x_image);
      for (Index n = 0; n < images; ++n) {
        pad_columns(grad, x_begin + n * image_size, first_row, padded_rows, padded_columns,
                    scratch + n * pixels.x_image);
      }
      x_begin = scratch;
      origin = 0;
    }
    pixels.x_row = grad.stride_h * x_row;
    pixels.x_column = grad.stride_w * grad.channels;

    // Several images in a group come with all their rows, so that their gradients follow each other.
    const Index gy_rows = images * rows;
    const T* gy_begin = gy + (image * grad.out_rows + row) * gy_row;
    if (grad.padded_outputs != grad.out_channels) {
      T* scratch = task_scratch().grad.get<T>(gy_rows * grad.out_columns * grad.padded_outputs);
      pad_channels(gy_begin, gy_rows * grad.out_columns, grad.out_channels, grad.padded_outputs, scratch);
      gy_begin = scratch;
    }
    pixels.gy_column = grad.padded_outputs;
    pixels.gy_row = grad.out_columns * grad.padded_outputs;
    pixels.gy_image = rows * pixels.gy_row;

    // The next group begins where this one ends, in x and in gy. Not worth it when most of x is stepped over.
    Index steps = 0;
    each_block<T>(grad.padded_outputs, [&](Index, size_t vectors) { steps += tiles(vectors).of_part; });
    const Index input_rows = images > 1 ? images * grad.rows : rows * grad.stride_h;
    const auto x_at = [&](Index after) {
      return x + std::min(image * image_size + (row * grad.stride_h + after) * grad.columns * grad.channels,
                          grad.images * image_size);
    };
    const auto gy_at = [&](Index after) {
      return gy + std::min(image * grad.out_rows + row + after, grad.images * grad.out_rows) * gy_row;
    };
    const Index next_rows = grad.stride_h > grad.kernel_rows ? 0 : input_rows;
    Prefetcher next_x(x_at(input_rows), x_at(input_rows + next_rows), steps);
    Prefetcher next_gy(gy_at(gy_rows), gy_at(2 * gy_rows), steps);

    each_block<T>(grad.padded_outputs, [&](Index co, size_t vectors) {
      const auto [unit_blocks, first_tile, tile_count] = tiles(vectors);
      for (Index tile = first_tile; tile < first_tile + tile_count; ++tile) {
        const Index block = tile % unit_blocks;
        const Index column = tile / unit_blocks % units;
        const Index kernel_row = tile / unit_blocks / units;
        const Index first = unit * block / unit_blocks;
        const Index weights = unit * (block + 1) / unit_blocks - first;
        const Range inside_rows = outputs_inside(first_row + kernel_row, grad.stride_h, grad.rows, rows);
        const Range inside_columns =
            by_column ? outputs_inside(column - grad.pad_w, grad.stride_w, grad.columns, grad.out_columns)
                      : Range{0, grad.out_columns};
        pixels.rows = inside_rows.end - inside_rows.begin;
        pixels.columns = inside_columns.end - inside_columns.begin;
        pixels.x = x_begin + (origin + kernel_row * x_row + column * unit + first +
                              inside_rows.begin * pixels.x_row + inside_columns.begin * pixels.x_column);
        pixels.gy =
            gy_begin + co + inside_rows.begin * pixels.gy_row + inside_columns.begin * pixels.gy_column;
        T* const to = sums + (kernel_row * run + column * unit + first) * grad.padded_outputs + co;
        find_grad_block<T>(weights, vectors)(pixels, group != group_begin, to, grad.padded_outputs);
        next_x.step();
        next_gy.step();
      }
    });
  }
}

void weight_grad_f32(const WeightGrad& grad, const float* x, const float* gy, float* sums, Index group_begin,
                     Index group_end, Index part, Index parts) {
  weight_grad_groups(grad, x, gy, sums, group_begin, group_end, part, parts);
}

void weight_grad_f64(const WeightGrad& grad, const double* x, const double* gy, double* sums,
                     Index group_begin, Index group_end, Index part, Index parts) {
  weight_grad_groups(grad, x, gy, sums, group_begin, group_end, part, parts);
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels::simd {

HWY_EXPORT(weight_grad_f32);
HWY_EXPORT(weight_grad_f64);

void weight_grad(const WeightGrad& grad, const float* x, const float* gy, float* sums,
                 std::int64_t group_begin, std::int64_t group_end, std::int64_t part, std::int64_t parts) {
  HWY_DYNAMIC_DISPATCH(weight_grad_f32)(grad, x, gy, sums, group_begin, group_end, part, parts);
}

void weight_grad(const WeightGrad& grad, const double* x, const double* gy, double* sums,
                 std::int64_t group_begin, std::int64_t group_end, std::int64_t part, std::int64_t parts) {
  HWY_DYNAMIC_DISPATCH(weight_grad_f64)(grad, x, gy, sums, group_begin, group_end, part, parts);
}

}  // namespace goshawk::kernels::simd
#endif
