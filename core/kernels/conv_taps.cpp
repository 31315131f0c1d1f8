// Vector kernels of the forward convolution and of the input gradient.
#include <algorithm>
#include <cstring>

#include "core/kernels/conv_scratch.hpp"
#include "core/kernels/conv_simd.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/conv_taps.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>
// clang-format on

#include "core/kernels/conv_block-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels::simd {
namespace HWY_NAMESPACE {

/// Copies `channels` channels from every from_step elements to every kChannelBlock.
template <class T>
void copy_pixels(const T* HWY_RESTRICT from, Index from_step, Index pixels, Index channels,
                 T* HWY_RESTRICT to) {
  if (channels == kChannelBlock) {
    for (Index p = 0; p < pixels; ++p) {
      std::memcpy(to + p * kChannelBlock, from + p * from_step, kChannelBlock * sizeof(T));
    }
  } else {
    for (Index p = 0; p < pixels; ++p) {
      for (Index c = 0; c < channels; ++c) to[p * kChannelBlock + c] = from[p * from_step + c];
    }
  }
}

/// Source rows with a border of zeros left and right, as
/// [channel block][row][column % step][column / step][kChannelBlock]. Rows outside of the image are not
/// written.
template <class T>
void fill_scratch(const TapConv& conv, const T* image, Index first_row, Index rows, T* scratch) {
  const Index step = conv.column_step;
  const Index run_size = conv.scratch_columns * kChannelBlock;
  const Index plane_size = conv.scratch_rows * step * run_size;
  for (Index r = 0; r < rows; ++r) {
    if ((first_row + r) % conv.row_step >= conv.used_rows) continue;
    const Index row = first_row + r - conv.pad_top;
    if (row < 0 || row >= conv.source_rows) continue;
    const T* image_row = image + row * conv.source_columns * conv.source_channels;
    for (Index remainder = 0; remainder < conv.used_columns; ++remainder) {
      const Index shift = conv.pad_left - remainder;
      const Span span = inside_image(conv.scratch_columns, step, shift, conv.source_columns);
      T* to = scratch + (r * step + remainder) * run_size;
      for (Index c = 0; c < conv.source_channels; c += kChannelBlock, to += plane_size) {
        if (span.first == span.last) {
          set_zero(to, to + run_size);
          continue;
        }
        set_zero(to, to + span.first * kChannelBlock);
        copy_pixels(image_row + (span.first * step - shift) * conv.source_channels + c,
                    step * conv.source_channels, span.last - span.first,
                    std::min(kChannelBlock, conv.source_channels - c), to + span.first * kChannelBlock);
        set_zero(to + span.last * kChannelBlock, to + run_size);
      }
    }
  }
}

/// The same with joined columns: a scratch pixel holds the channels of joined_columns neighbouring source
/// pixels.
template <class T>
void fill_joined_scratch(const TapConv& conv, const T* image, Index first_row, Index rows, T* scratch) {
  const Index run_size = conv.scratch_columns * kChannelBlock;
  const Index plane_size = conv.scratch_rows * run_size;
  const Index channels = conv.source_channels;
  const Index padded_columns = (conv.scratch_columns - 1) * conv.joined_step + conv.joined_columns;
  const Span span = inside_image(padded_columns, 1, conv.pad_left, conv.source_columns);
  // One padded source row, and a block more because whole blocks are copied from it.
  const Index buffer_size = padded_columns * channels + kChannelBlock;
  T* buffer = task_scratch().row.get<T>(buffer_size);
  set_zero(buffer, buffer + buffer_size);
  for (Index r = 0; r < rows; ++r) {
    if ((first_row + r) % conv.row_step >= conv.used_rows) continue;
    const Index row = first_row + r - conv.pad_top;
    if (row < 0 || row >= conv.source_rows) continue;
    const bool inside = span.first < span.last;
    if (inside) {
      std::memcpy(buffer + span.first * channels,
                  image + (row * conv.source_columns + span.first - conv.pad_left) * channels,
                  static_cast<size_t>((span.last - span.first) * channels) * sizeof(T));
    }
    T* to = scratch + r * run_size;
    for (Index c = 0; c < conv.joined_columns * channels; c += kChannelBlock, to += plane_size) {
      if (inside) {
        copy_pixels(buffer + c, conv.joined_step * channels, conv.scratch_columns, kChannelBlock, to);
      } else {
        set_zero(to, to + run_size);
      }
    }
  }
}

/// A convolution whose pixels are read where they lie: its only phase has one tap for each block of channels.
template <class T>
void pixel_rows(const TapConv& conv, const T* source, const T* weights, T* target, Index image,
                Index row_begin, Index row_end) {
  const TapPhase& phase = conv.phases.front();
  const Index source_row = conv.source_columns * conv.source_channels;
  const Index target_row = conv.target_columns * conv.target_channels;
  const Index step = conv.column_step * conv.source_channels;
  // Rows that follow each other without a gap are one run of pixels.
  const bool joined = conv.row_step == 1 && conv.column_step == 1;
  const Index rows = joined ? 1 : row_end - row_begin;
  const Index columns = joined ? (row_end - row_begin) * phase.columns : phase.columns;
  const T* image_source = source + (image * conv.source_rows + row_begin * conv.row_step) * source_row;
  T* image_target = target + (image * conv.target_rows + row_begin) * target_row;
  const auto pixel_blocks = [&](size_t vectors) {
    const auto most = static_cast<Index>(max_rows(vectors));
    return (columns + most - 1) / most;
  };
  Index steps = 0;
  each_block<T>(conv.target_channels, [&](Index, size_t vectors) { steps += rows * pixel_blocks(vectors); });
  // Skipped rows are not read.
  const T* next_source = image_source + (row_end - row_begin) * conv.row_step * source_row;
  const T* end_source = source + conv.images * conv.source_rows * source_row;
  const Index next_size = conv.row_step > 1 ? 0 : (row_end - row_begin) * source_row;
  Prefetcher next(std::min(next_source, end_source), std::min(next_source + next_size, end_source), steps);
  each_block<T>(conv.target_channels, [&](Index co, size_t vectors) {
    const Index blocks = pixel_blocks(vectors);
    const T* block_weights = weights + phase.packed_weights + co * phase.depth;
    for (Index row = 0; row < rows; ++row) {
      const T* in = image_source + row * conv.row_step * source_row;
      T* out = image_target + row * target_row + co;
      for (Index b = 0; b < blocks; ++b) {
        const Index first = columns * b / blocks;
        const Index pixels = columns * (b + 1) / blocks - first;
        find_pixel_block<T>(pixels, vectors)(in + first * step, step, phase.depth, block_weights,
                                             {out + first * conv.target_channels, conv.target_channels,
                                              conv.target_channels - co, conv.add, weights + co});
        next.step();
      }
    }
  });
}

/// The kernel rows [first, last) of a phase that meet the image for output row `row`.
Span inside_kernel_rows(const TapConv& conv, const TapPhase& phase, Index row) {
  const auto inside = [&](Index kernel_row) {
    const Index source =
        row * conv.row_step + phase.kernel_rows[static_cast<size_t>(kernel_row)] - conv.pad_top;
    return source >= 0 && source < conv.source_rows;
  };
  Span span{0, static_cast<Index>(phase.kernel_rows.size())};
  while (span.first < span.last && !inside(span.first)) ++span.first;
  while (span.first < span.last && !inside(span.last - 1)) --span.last;
  return span;
}

template <class T>
void tap_conv_rows(const TapConv& conv, const T* source, const T* weights, T* target, Index image,
                   Index row_begin, Index row_end) {
  if (conv.in_place) {
    pixel_rows(conv, source, weights, target, image, row_begin, row_end);
    return;
  }
  const Index row_size = conv.column_step * conv.scratch_columns * kChannelBlock;
  const Index blocks = (conv.joined_columns * conv.source_channels + kChannelBlock - 1) / kChannelBlock;
  T* scratch = task_scratch().image.get<T>(blocks * conv.scratch_rows * row_size);
  const Index source_row = conv.source_columns * conv.source_channels;
  const Index source_image = conv.source_rows * source_row;
  const Index halo_rows = conv.scratch_rows - (conv.task_rows - 1) * conv.row_step;
  const auto fill = conv.joined_columns > 1 ? &fill_joined_scratch<T> : &fill_scratch<T>;
  fill(conv, source + image * source_image, row_begin * conv.row_step,
       (row_end - row_begin - 1) * conv.row_step + halo_rows, scratch);

  // Tasks follow each other in memory, so the next one most likely reads on where the rows of this one end.
  const auto source_at = [&](Index row) {
    return source +
           std::min(image * source_image + row * conv.row_step * source_row, conv.images * source_image);
  };
  // Not when rows are skipped: most of what lies there is not read.
  const Index next_rows = conv.used_rows < conv.row_step ? 0 : row_end - row_begin;
  Index target_blocks = 0;
  each_block<T>(conv.target_channels, [&](Index, size_t) { ++target_blocks; });
  Prefetcher next(source_at(row_end), source_at(row_end + next_rows),
                  static_cast<Index>(conv.phases.size()) * target_blocks * (row_end - row_begin));

  const Index target_row = conv.target_columns * conv.target_channels;
  const Index pixel_step = conv.target_column_step * conv.target_channels;
  for (const TapPhase& phase : conv.phases) {
    const Index kernel_rows = std::max(static_cast<Index>(phase.kernel_rows.size()), Index{1});
    const Index row_taps = static_cast<Index>(phase.taps.size()) / kernel_rows;
    const Index row_depth = phase.depth / kernel_rows;
    const Index end = std::min(row_end, phase.rows);
    each_block<T>(conv.target_channels, [&](Index co, size_t vectors) {
      const Index block_channels = static_cast<Index>(vectors) * kLanes<T>;
      const Index max_pixels = static_cast<Index>(max_rows(vectors));
      // Blocks as equal as possible: 17 pixels are 9 + 8, not 16 + 1.
      const Index pixel_blocks = (phase.columns + max_pixels - 1) / max_pixels;
      const T* block_weights = weights + phase.packed_weights + co * phase.depth;
      for (Index row = row_begin; row < end; ++row) {
        const Span span = inside_kernel_rows(conv, phase, row);
        const Tap* const taps = phase.taps.data() + span.first * row_taps;
        const Tap* const taps_end = phase.taps.data() + span.last * row_taps;
        const T* const row_weights = block_weights + span.first * row_depth * block_channels;
        const T* in = scratch + (row - row_begin) * conv.row_step * row_size;
        T* out = target +
                 (image * conv.target_rows + phase.first_row + row * conv.target_row_step) * target_row +
                 phase.first_column * conv.target_channels + co;
        for (Index b = 0; b < pixel_blocks; ++b) {
          const Index first = phase.columns * b / pixel_blocks;
          const Index pixels = phase.columns * (b + 1) / pixel_blocks - first;
          find_tap_block<T>(pixels, vectors)(
              in + first * kChannelBlock, taps, taps_end, row_weights,
              {out + first * pixel_step, pixel_step, conv.target_channels - co, conv.add, weights + co});
        }
        next.step();
      }
    });
  }
}

Target find_target_f32() {
  return {kLanes<float>, static_cast<Index>(kWidest)};
}
Target find_target_f64() {
  return {kLanes<double>, static_cast<Index>(kWidest)};
}

void tap_conv_f32(const TapConv& conv, const float* source, const float* weights, float* target, Index image,
                  Index row_begin, Index row_end) {
  tap_conv_rows(conv, source, weights, target, image, row_begin, row_end);
}

void tap_conv_f64(const TapConv& conv, const double* source, const double* weights, double* target,
                  Index image, Index row_begin, Index row_end) {
  tap_conv_rows(conv, source, weights, target, image, row_begin, row_end);
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels::simd {

HWY_EXPORT(find_target_f32);
HWY_EXPORT(find_target_f64);
HWY_EXPORT(tap_conv_f32);
HWY_EXPORT(tap_conv_f64);

Target target_f32() {
  return HWY_DYNAMIC_DISPATCH(find_target_f32)();
}

Target target_f64() {
  return HWY_DYNAMIC_DISPATCH(find_target_f64)();
}

std::vector<std::int64_t> supported_targets() {
  return hwy::SupportedAndGeneratedTargets();
}

void tap_conv(const TapConv& conv, const float* source, const float* weights, float* target,
              std::int64_t image, std::int64_t row_begin, std::int64_t row_end) {
  HWY_DYNAMIC_DISPATCH(tap_conv_f32)(conv, source, weights, target, image, row_begin, row_end);
}

void tap_conv(const TapConv& conv, const double* source, const double* weights, double* target,
              std::int64_t image, std::int64_t row_begin, std::int64_t row_end) {
  HWY_DYNAMIC_DISPATCH(tap_conv_f64)(conv, source, weights, target, image, row_begin, row_end);
}

}  // namespace goshawk::kernels::simd
#endif
