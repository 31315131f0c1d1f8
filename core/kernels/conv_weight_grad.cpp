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

/// Output rows [row, row + rows) of so many images, whose products are summed at once.
struct Group {
  Index image, images, row, rows;
};

/// A part of the weights as register blocks. A block lies within a unit: a column of the kernel, or a whole
/// row of it where the columns' channels are few or lie in x as they do in the kernel.
class WeightBlocks {
 public:
  WeightBlocks(const WeightGrad& grad, Index part, Index parts)
      : by_column_(grad.pad_w > 0 && grad.channels >= kMinColumnChannels),
        kernel_rows_(grad.kernel_rows),
        units_(by_column_ ? grad.kernel_columns : 1),
        unit_(grad.kernel_columns * grad.channels / units_),
        part_(part),
        parts_(parts) {}

  /// Whether blocks lie within a kernel column.
  bool by_column() const { return by_column_; }
  Index count(size_t vectors) const { return end(vectors) - begin(vectors); }
  /// f(kernel row, kernel column or 0, first weight after that column's beginning, weights) for each block.
  template <class F>
  void each(size_t vectors, const F& f) const {
    const Index blocks = unit_blocks(vectors), last = end(vectors);
    for (Index i = begin(vectors); i < last; ++i) {
      const Index block = i % blocks, first = unit_ * block / blocks;
      f(i / blocks / units_, i / blocks % units_, first, unit_ * (block + 1) / blocks - first);
    }
  }

 private:
  Index unit_blocks(size_t vectors) const {
    const auto most = static_cast<Index>(max_rows(vectors));
    return (unit_ + most - 1) / most;
  }
  Index all(size_t vectors) const { return kernel_rows_ * units_ * unit_blocks(vectors); }
  Index begin(size_t vectors) const { return all(vectors) * part_ / parts_; }
  Index end(size_t vectors) const { return all(vectors) * (part_ + 1) / parts_; }

  bool by_column_;
  Index kernel_rows_, units_, unit_, part_, parts_;
};

/// Where a group's input is. Kernel row 0 and column 0 meet `origin` elements after x, or before it where
/// that is padding.
template <class T>
struct GroupInput {
  const T* x;
  Index origin;
  Index row, image;  // elements from one to the next
};

/// Reads x where it lies unless blocks span several columns of the kernel and there is a border beside the
/// image: then a copy with zeros there.
template <class T>
GroupInput<T> group_input(const WeightGrad& grad, const Group& group, bool by_column, const T* x) {
  const Index row_size = grad.columns * grad.channels, image_size = grad.rows * row_size;
  const Index first_row = group.row * grad.stride_h - grad.pad_h;
  const T* const first_image = x + group.image * image_size;
  if (grad.pad_w == 0 || by_column) {
    return {first_image, first_row * row_size - grad.pad_w * grad.channels, row_size, image_size};
  }
  const Index columns = (grad.out_columns - 1) * grad.stride_w + grad.kernel_columns;
  const Index rows = (group.rows - 1) * grad.stride_h + grad.kernel_rows;
  const Index padded_row = columns * grad.channels, padded_image = rows * padded_row;
  T* const copy = task_scratch().image.get<T>(group.images * padded_image);
  for (Index n = 0; n < group.images; ++n) {
    pad_columns(grad, first_image + n * image_size, first_row, rows, columns, copy + n * padded_image);
  }
  return {copy, 0, padded_row, padded_image};
}

/// The output gradients of a group, of whole vectors of channels: copied where they are not.
template <class T>
const T* group_gradients(const WeightGrad& grad, const Group& group, const T* gy) {
  const Index row_size = grad.out_columns * grad.out_channels;
  // Several images in a group come with all their rows, so that their gradients follow each other.
  const T* const from = gy + (group.image * grad.out_rows + group.row) * row_size;
  if (grad.padded_outputs == grad.out_channels) return from;
  const Index pixels = group.images * group.rows * grad.out_columns;
  T* const copy = task_scratch().grad.get<T>(pixels * grad.padded_outputs);
  pad_channels(from, pixels, grad.out_channels, grad.padded_outputs, copy);
  return copy;
}

template <class T>
void weight_grad_groups(const WeightGrad& grad, const T* x, const T* gy, T* sums, Index group_begin,
                        Index group_end, Index part, Index parts) {
  const WeightBlocks blocks(grad, part, parts);
  const Index kernel_row_size = grad.kernel_columns * grad.channels;
  Index steps = 0;  // of prefetching
  each_block<T>(grad.padded_outputs, [&](Index, size_t vectors) { steps += blocks.count(vectors); });

  Group group{};
  for (Index g = group_begin; g < group_end; g += group.images) {
    group.image = g / grad.row_groups;
    group.images = std::min(grad.group_images, group_end - g);
    group.row = g % grad.row_groups * grad.group_rows;
    group.rows = std::min(grad.group_rows, grad.out_rows - group.row);
    const GroupInput<T> input = group_input(grad, group, blocks.by_column(), x);
    const T* const gradients = group_gradients(grad, group, gy);
    GradPixels<T> pixels{.images = group.images,
                         .x_image = input.image,
                         .x_row = grad.stride_h * input.row,
                         .x_column = grad.stride_w * grad.channels,
                         .gy_image = group.rows * grad.out_columns * grad.padded_outputs,
                         .gy_row = grad.out_columns * grad.padded_outputs,
                         .gy_column = grad.padded_outputs};

    // The next group begins where this one ends, in x and in gy. Not worth it when most of x is stepped over.
    const Index input_rows = group.images > 1 ? group.images * grad.rows : group.rows * grad.stride_h;
    const auto x_at = [&](Index rows) {
      return x +
             std::min(group.image * grad.rows + group.row * grad.stride_h + rows, grad.images * grad.rows) *
                 grad.columns * grad.channels;
    };
    const auto gy_at = [&](Index rows) {
      return gy + std::min(group.image * grad.out_rows + group.row + rows, grad.images * grad.out_rows) *
                      grad.out_columns * grad.out_channels;
    };
    const Index next_rows = grad.stride_h > grad.kernel_rows ? 0 : input_rows;
    const Index gy_rows = group.images * group.rows;
    Prefetcher next_x(x_at(input_rows), x_at(input_rows + next_rows), steps);
    Prefetcher next_gy(gy_at(gy_rows), gy_at(2 * gy_rows), steps);

    const Index first_row = group.row * grad.stride_h - grad.pad_h;
    each_block<T>(grad.padded_outputs, [&](Index co, size_t vectors) {
      blocks.each(vectors, [&](Index kernel_row, Index column, Index first, Index weights) {
        // The outputs whose input for this row and column of the kernel is in the image.
        const Span rows = inside_image(group.rows, grad.stride_h, -(first_row + kernel_row), grad.rows);
        const Span columns = blocks.by_column() ? inside_image(grad.out_columns, grad.stride_w,
                                                               grad.pad_w - column, grad.columns)
                                                : Span{0, grad.out_columns};
        const Index weight = column * grad.channels + first;  // of the kernel's row
        pixels.rows = rows.last - rows.first;
        pixels.columns = columns.last - columns.first;
        pixels.x = input.x + (input.origin + kernel_row * input.row + weight + rows.first * pixels.x_row +
                              columns.first * pixels.x_column);
        pixels.gy = gradients + co + rows.first * pixels.gy_row + columns.first * pixels.gy_column;
        find_grad_block<T>(weights, vectors)(
            pixels, g != group_begin,
            sums + (kernel_row * kernel_row_size + weight) * grad.padded_outputs + co, grad.padded_outputs);
        next_x.step();
        next_gy.step();
      });
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
