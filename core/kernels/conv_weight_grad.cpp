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

/// Copies the input rows that output rows [row, row + rows) of one image need, with their border of zeros.
template <class T>
void pad_rows(const WeightGrad& grad, const T* image, Index row, Index rows, Index padded_columns, T* to) {
  const Index padded_rows = (rows - 1) * grad.stride_h + grad.kernel_rows;
  const Index left = std::min(grad.pad_w, padded_columns) * grad.channels;
  const Index inside = std::min(grad.columns * grad.channels, padded_columns * grad.channels - left);
  for (Index r = 0; r < padded_rows; ++r) {
    T* const end = to + padded_columns * grad.channels;
    const Index y = row * grad.stride_h + r - grad.pad_h;
    if (y < 0 || y >= grad.rows) {
      set_zero(to, end);
    } else {
      set_zero(to, to + left);
      std::memcpy(to + left, image + y * grad.columns * grad.channels,
                  static_cast<size_t>(inside) * sizeof(T));
      set_zero(to + left + inside, end);
    }
    to = end;
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

  struct Tiles {
    Index run_blocks, first, of_part;
  };
  /// The register blocks that cover the weights of one block of output channels, and which of them are ours.
  const auto tiles = [&](Index vectors) -> Tiles {
    const Index max_rows = static_cast<Index>(vectors == 1 ? kMaxRows1 : kMaxRows2);
    const Index run_blocks = (run + max_rows - 1) / max_rows;
    const Index all = grad.kernel_rows * run_blocks;
    return {run_blocks, all * part / parts, all * (part + 1) / parts - all * part / parts};
  };

  Index images = 0;
  for (Index group = group_begin; group < group_end; group += images) {
    const Index image = group / grad.row_groups;
    const Index row = group % grad.row_groups * grad.group_rows;
    images = std::min(grad.group_images, group_end - group);
    GradPixels<T> pixels{};
    pixels.images = images;
    pixels.rows = std::min(grad.group_rows, grad.out_rows - row);
    pixels.columns = grad.out_columns;

    Index x_row = grad.columns * grad.channels;
    const T* x_begin = x + image * image_size + row * grad.stride_h * x_row;
    pixels.x_image = image_size;
    if (grad.pad_h > 0 || grad.pad_w > 0) {
      x_row = padded_columns * grad.channels;
      pixels.x_image = ((pixels.rows - 1) * grad.stride_h + grad.kernel_rows) * x_row;
      T* scratch = task_scratch().image.get<T>(images * pixels.x_image);
      for (Index n = 0; n < images; ++n) {
        pad_rows(grad, x + (image + n) * image_size, row, pixels.rows, padded_columns,
                 scratch + n * pixels.x_image);
      }
      x_begin = scratch;
    }
    pixels.x_row = grad.stride_h * x_row;
    pixels.x_column = grad.stride_w * grad.channels;

    // Several images in a group come with all their rows, so that their gradients follow each other.
    const Index gy_rows = images * pixels.rows;
    const T* gy_begin = gy + (image * grad.out_rows + row) * gy_row;
    if (grad.padded_outputs != grad.out_channels) {
      T* scratch = task_scratch().grad.get<T>(gy_rows * grad.out_columns * grad.padded_outputs);
      pad_channels(gy_begin, gy_rows * grad.out_columns, grad.out_channels, grad.padded_outputs, scratch);
      gy_begin = scratch;
    }
    pixels.gy_column = grad.padded_outputs;
    pixels.gy_row = grad.out_columns * grad.padded_outputs;
    pixels.gy_image = pixels.rows * pixels.gy_row;

    // The next group begins where this one ends, in x and in gy. Not worth it when most of x is stepped over.
    const Index output_vectors = grad.padded_outputs / kLanes<T>;
    const Index steps = output_vectors / 2 * tiles(2).of_part + output_vectors % 2 * tiles(1).of_part;
    const Index input_rows = images > 1 ? images * grad.rows : pixels.rows * grad.stride_h;
    const auto x_at = [&](Index rows) {
      return x + std::min(image * image_size + (row * grad.stride_h + rows) * grad.columns * grad.channels,
                          grad.images * image_size);
    };
    const auto gy_at = [&](Index rows) {
      return gy + std::min(image * grad.out_rows + row + rows, grad.images * grad.out_rows) * gy_row;
    };
    const Index next_rows = grad.stride_h > grad.kernel_rows ? 0 : input_rows;
    Prefetcher next_x(x_at(input_rows), x_at(input_rows + next_rows), steps);
    Prefetcher next_gy(gy_at(gy_rows), gy_at(2 * gy_rows), steps);

    Index vectors = 0;
    for (Index co = 0; co < grad.padded_outputs; co += vectors * kLanes<T>) {
      vectors = grad.padded_outputs - co > kLanes<T> ? 2 : 1;
      const auto [run_blocks, first_tile, tile_count] = tiles(vectors);
      for (Index tile = first_tile; tile < first_tile + tile_count; ++tile) {
        const Index kernel_row = tile / run_blocks;
        const Index block = tile % run_blocks;
        const Index first = run * block / run_blocks;
        const Index rows = run * (block + 1) / run_blocks - first;
        pixels.x = x_begin + kernel_row * x_row + first;
        pixels.gy = gy_begin + co;
        T* const to = sums + (kernel_row * run + first) * grad.padded_outputs + co;
        find_grad_block<T>(rows, static_cast<size_t>(vectors))(pixels, group != group_begin, to,
                                                               grad.padded_outputs);
        next_x.step();
        next_gy.step();
      }
    }
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
