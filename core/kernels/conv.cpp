#include "core/kernels/conv.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <type_traits>

#include "core/kernels/channel.hpp"
#include "core/kernels/conv_checks.hpp"
#include "core/kernels/conv_groups.hpp"
#include "core/kernels/conv_plan.hpp"
#include "core/kernels/conv_simd.hpp"
#include "core/kernels/conv_winograd.hpp"
#include "core/memory.hpp"
#include "core/parallel.hpp"

namespace goshawk::kernels {
namespace {

using Index = std::int64_t;

// Fixed rules that split the work; they must not depend on the number of threads.
constexpr Index kMaxJoinedChannels = 4;  // an input with so few channels has its kernel columns joined
constexpr Index kTasks = 16;             // aim for this many tasks when the batch alone has fewer
constexpr Index kMinTaskRows = 4;        // fewer rows would mostly copy halo
constexpr Index kMaxScratchBytes = Index{384} * 1024;  // of one task, to stay in the second-level cache
// A weight-gradient group is what fits the first-level cache. Where the sums do not fit as well, loading and
// storing them takes more pixels to pay, as long as these stay in the second-level cache.
constexpr Index kGroupBytes = Index{48} * 1024;
constexpr Index kSmallSumsBytes = Index{24} * 1024;
constexpr Index kGroupPixels = 512;
constexpr Index kMinGroupPixels = 64;    // whatever they take
constexpr Index kMinChunkPixels = 1024;  // enough to pay for summing one more chunk
constexpr Index kAliasBytes = 2048;      // half of what the sets of a first-level cache hold once
constexpr Index kMaxSumsBytes = Index{64} * 1024 * 1024;  // of all chunks together

Index divide_up(Index a, Index b) {
  return (a + b - 1) / b;
}

template <class T>
simd::Target current_target() {
  if constexpr (sizeof(T) == 4) {
    return simd::target_f32();
  } else {
    return simd::target_f64();
  }
}

template <class T>
class Buffer {
 public:
  explicit Buffer(Index elements) : block_(allocate(elements * static_cast<Index>(sizeof(T)))) {}
  T* data() const { return reinterpret_cast<T*>(block_.get()); }

 private:
  std::shared_ptr<std::byte[]> block_;
};

struct Geometry {
  Index n, h, w, ci, kh, kw, co, oh, ow;
  ConvParams params;
};

/// A 1 x 1 kernel does not see rows, so short rows are joined until they fill the register blocks.
Geometry geometry(const Shape& x, const Shape& w, const Shape& y, const ConvParams& params) {
  constexpr Index kLongRow = 64;
  Geometry g{x[0], x[1], x[2], x[3], w[0], w[1], w[3], y[1], y[2], params};
  const bool pointwise = g.kh == 1 && g.kw == 1 && params.stride_h == 1 && params.stride_w == 1 &&
                         params.pad_h == 0 && params.pad_w == 0;
  if (pointwise) {
    Index joined = std::clamp<Index>(kLongRow / g.w, 1, g.h);
    while (g.h % joined != 0) --joined;
    g.h = g.oh = g.h / joined;
    g.w = g.ow = g.w * joined;
  }
  return g;
}

/// A kernel element that takes part in a phase: its position in the weights and that of the source pixel.
struct Element {
  Index kernel;  // index into the kernel's rows or columns
  Index source;  // row or column relative to the first one in the scratch
};

/// The elements along one axis, and how many source rows or columns beyond the first they reach.
struct Axis {
  struct Phase {
    Index first = 0, count = 0;  // first output index, how many (in steps)
    std::vector<Element> elements;
  };
  Index pad = 0;
  Index reach = 0;
  Index max_count = 0;
  std::vector<Phase> phases;
};

Axis forward_axis(Index kernel, Index pad, Index out) {
  Axis axis{.pad = pad, .reach = kernel - 1, .max_count = out, .phases = {{0, out, {}}}};
  for (Index k = 0; k < kernel; ++k) axis.phases[0].elements.push_back({k, k});
  return axis;
}

/// Input index i = q * stride + phase meets kernel element k in output (i + pad - k) / stride where that is
/// whole, that is in output q + d with d = (phase + pad - k) / stride.
Axis input_grad_axis(Index kernel, Index stride, Index pad, Index in) {
  Axis axis;
  Index lowest = 0, highest = 0;
  bool any = false;
  for (Index phase = 0; phase < std::min(stride, in); ++phase) {
    Axis::Phase& p = axis.phases.emplace_back();
    p.first = phase;
    p.count = divide_up(in - phase, stride);
    axis.max_count = std::max(axis.max_count, p.count);
    for (Index k = 0; k < kernel; ++k) {
      if ((phase + pad - k) % stride != 0) continue;
      const Index d = (phase + pad - k) / stride;
      p.elements.push_back({k, d});
      lowest = any ? std::min(lowest, d) : d;
      highest = any ? std::max(highest, d) : d;
      any = true;
    }
  }
  for (Axis::Phase& p : axis.phases) {
    for (Element& e : p.elements) e.source -= lowest;
  }
  axis.pad = -lowest;
  axis.reach = highest - lowest;
  return axis;
}

/// Where results go: the images, whether to add to what is there, what every sum begins with, a number per
/// channel or null for 0, and what follows.
template <class T>
struct Output {
  const Tensor& images;
  bool add;
  const T* bias;
  const ConvEpilogue& epilogue;
};

/// Where the tap convolution finds the weight of (kernel row, kernel column, source channel, target channel).
struct WeightLayout {
  Index kernel_columns, element, source_channel, target_channel;  // the last three are distances in elements
};

template <class T>
void run_tap_conv(simd::TapConv conv, const Axis& rows, const Axis& columns, Index images, const T* source,
                  const T* weights, const WeightLayout& layout, const Output<T>& target) {
  const Index source_channels = conv.joined_columns * conv.source_channels;
  const Index blocks = divide_up(source_channels, simd::kChannelBlock);
  conv.images = images;
  conv.add = target.add;
  conv.pad_top = rows.pad;
  conv.pad_left = columns.pad;
  conv.used_rows = std::min(conv.row_step, rows.reach + 1);
  conv.used_columns = std::min(conv.column_step, columns.reach + 1);
  conv.scratch_columns = columns.max_count + columns.reach / conv.column_step;
  const Index row_size = conv.column_step * conv.scratch_columns * simd::kChannelBlock;
  const Index row_bytes = blocks * row_size * static_cast<Index>(sizeof(T)) * conv.row_step;
  conv.task_rows = std::max({kMinTaskRows, divide_up(rows.max_count, divide_up(kTasks, images))});
  conv.task_rows = std::min(conv.task_rows, std::max(kMinTaskRows, kMaxScratchBytes / row_bytes));
  conv.task_rows = divide_up(rows.max_count, divide_up(rows.max_count, conv.task_rows));
  conv.scratch_rows = (conv.task_rows - 1) * conv.row_step + rows.reach + 1;

  // Pixels whose distance is a multiple of half a page share so few sets of the first-level cache that a
  // block of them does not stay in it: they are copied closer together.
  const Index pixel_bytes = conv.column_step * conv.source_channels * static_cast<Index>(sizeof(T));
  conv.in_place = rows.reach == 0 && columns.reach == 0 && rows.pad == 0 && columns.pad == 0 &&
                  rows.phases.size() == 1 && columns.phases.size() == 1 &&
                  rows.phases[0].elements.size() == 1 && columns.phases[0].elements.size() == 1 &&
                  conv.joined_columns == 1 && conv.target_row_step == 1 && conv.target_column_step == 1 &&
                  pixel_bytes % kAliasBytes != 0;

  const simd::Target isa = current_target<T>();
  const Index padded_channels = divide_up(conv.target_channels, isa.lanes) * isa.lanes;
  struct PackedTap {
    Index weight;
    Index channels;
  };
  std::vector<std::vector<PackedTap>> packing;
  Index packed_size = padded_channels;  // the bias comes first
  for (const Axis::Phase& row : rows.phases) {
    for (const Axis::Phase& column : columns.phases) {
      simd::TapPhase phase{.first_row = row.first,
                           .first_column = column.first,
                           .rows = row.count,
                           .columns = column.count,
                           .kernel_rows = {},
                           .taps = {},
                           .depth = 0,
                           .packed_weights = packed_size};
      std::vector<PackedTap>& packed_taps = packing.emplace_back();
      for (const Element& ky : row.elements) {
        phase.kernel_rows.push_back(ky.source);
        for (const Element& kx : column.elements) {
          const Index in_row =
              (kx.source % conv.column_step * conv.scratch_columns + kx.source / conv.column_step) *
              simd::kChannelBlock;
          for (Index b = 0; b < blocks; ++b) {
            const Index channel = b * simd::kChannelBlock;
            const Index channels = std::min(simd::kChannelBlock, source_channels - channel);
            phase.taps.push_back(
                {.offset = (b * conv.scratch_rows + ky.source) * row_size + in_row, .channels = channels});
            packed_taps.push_back({(ky.kernel * layout.kernel_columns + kx.kernel) * layout.element +
                                       channel * layout.source_channel,
                                   channels});
            phase.depth += channels;
          }
        }
      }
      packed_size += phase.depth * padded_channels;
      conv.phases.push_back(std::move(phase));
    }
  }

  const Buffer<T> packed(packed_size);
  std::fill_n(packed.data(), padded_channels, T{0});
  if (target.bias != nullptr) std::copy_n(target.bias, conv.target_channels, packed.data());
  const Index vectors = padded_channels / isa.lanes;
  for (std::size_t i = 0; i < packing.size(); ++i) {
    parallel_for(vectors, 1, [&](Index begin, Index end) {
      for (Index vector = begin; vector < end; ++vector) {
        const simd::VectorBlock block = simd::block_of(vector, vectors, isa.block_vectors);
        const Index first = vector * isa.lanes;
        const Index filled = std::min(isa.lanes, conv.target_channels - first);
        T* to = packed.data() + conv.phases[i].packed_weights +
                block.first * isa.lanes * conv.phases[i].depth + (vector - block.first) * isa.lanes;
        for (const PackedTap& tap : packing[i]) {
          for (Index c = 0; c < tap.channels; ++c, to += block.vectors * isa.lanes) {
            const T* from = weights + tap.weight + c * layout.source_channel + first * layout.target_channel;
            for (Index j = 0; j < filled; ++j) to[j] = from[j * layout.target_channel];
            std::fill(to + filled, to + isa.lanes, T{0});
          }
        }
      }
    });
  }

  T* const to = target.images.template data<T>();
  const Index tasks_per_image = divide_up(rows.max_count, conv.task_rows);
  parallel_for(images * tasks_per_image, 1, [&](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      const Index image = task / tasks_per_image, row = task % tasks_per_image * conv.task_rows;
      const Index row_end = std::min(rows.max_count, row + conv.task_rows);
      simd::tap_conv(conv, source, packed.data(), to, image, row, row_end);
      if (target.epilogue.empty()) continue;
      const Index first = row * conv.target_row_step;
      const Index last = std::min(row_end * conv.target_row_step, conv.target_rows);
      apply_epilogue(target.images, target.epilogue, (image * conv.target_rows + first) * conv.target_columns,
                     (last - first) * conv.target_columns);
    }
  });
}

template <class T>
void forward(const Geometry& g, const T* x, const T* w, const Output<T>& y) {
  simd::TapConv conv;
  conv.source_rows = g.h;
  conv.source_columns = g.w;
  conv.source_channels = g.ci;
  conv.row_step = g.params.stride_h;
  conv.target_rows = g.oh;
  conv.target_columns = g.ow;
  conv.target_channels = g.co;
  const Axis rows = forward_axis(g.kh, g.params.pad_h, g.oh);
  if (g.kw > 1 && g.ci <= kMaxJoinedChannels) {
    // A row of the kernel is one element of KW * Ci channels: as it lies in memory.
    conv.joined_columns = g.kw;
    conv.joined_step = g.params.stride_w;
    run_tap_conv(std::move(conv), rows, forward_axis(1, g.params.pad_w, g.ow), g.n, x, w,
                 {1, g.kw * g.ci * g.co, g.co, 1}, y);
  } else {
    conv.column_step = g.params.stride_w;
    run_tap_conv(std::move(conv), rows, forward_axis(g.kw, g.params.pad_w, g.ow), g.n, x, w,
                 {g.kw, g.ci * g.co, g.co, 1}, y);
  }
}

template <class T>
void input_grad(const Geometry& g, const T* gy, const T* w, const Output<T>& gx) {
  simd::TapConv conv;
  conv.source_rows = g.oh;
  conv.source_columns = g.ow;
  conv.source_channels = g.co;
  conv.target_rows = g.h;
  conv.target_columns = g.w;
  conv.target_channels = g.ci;
  conv.target_row_step = g.params.stride_h;
  conv.target_column_step = g.params.stride_w;
  run_tap_conv(std::move(conv), input_grad_axis(g.kh, g.params.stride_h, g.params.pad_h, g.h),
               input_grad_axis(g.kw, g.params.stride_w, g.params.pad_w, g.w), g.n, gy, w,
               {g.kw, g.ci * g.co, 1, g.co}, gx);
}

/// How many rows or images of `pixels` output pixels and `bytes` of operands each make a group of a weight
/// gradient, with `fixed_bytes` more for all of them. `large_sums`: the sums are more than small.
Index group_length(Index pixels, Index bytes, Index fixed_bytes, bool large_sums) {
  const auto fitting = [&](Index limit) { return (limit - fixed_bytes) / bytes; };
  const Index wanted = large_sums ? std::min(divide_up(kGroupPixels, pixels), fitting(kMaxScratchBytes)) : 0;
  return std::max({Index{1}, fitting(kGroupBytes), wanted, divide_up(kMinGroupPixels, pixels)});
}

/// The direct sums of a weight gradient, in groups of rows or images that stay in a cache.
template <class T>
simd::WeightGrad weight_grad_groups(const Geometry& g) {
  const Index lanes = current_target<T>().lanes;
  constexpr Index size = static_cast<Index>(sizeof(T));
  simd::WeightGrad grad;
  grad.rows = g.h;
  grad.columns = g.w;
  grad.channels = g.ci;
  grad.out_rows = g.oh;
  grad.out_columns = g.ow;
  grad.out_channels = g.co;
  grad.kernel_rows = g.kh;
  grad.kernel_columns = g.kw;
  grad.stride_h = g.params.stride_h;
  grad.stride_w = g.params.stride_w;
  grad.pad_h = g.params.pad_h;
  grad.pad_w = g.params.pad_w;
  grad.images = g.n;
  grad.padded_outputs = divide_up(g.co, lanes) * lanes;

  const bool large_sums = g.kh * g.kw * g.ci * grad.padded_outputs * size > kSmallSumsBytes;
  const Index row_bytes = (g.params.stride_h * (g.w + 2 * g.params.pad_w) * g.ci + g.ow * g.co) * size;
  const Index halo_bytes = (g.kh - 1) * (g.w + 2 * g.params.pad_w) * g.ci * size;
  const Index rows = group_length(g.ow, row_bytes, halo_bytes, large_sums);
  grad.row_groups = divide_up(g.oh, std::min(rows, g.oh));
  grad.group_rows = divide_up(g.oh, grad.row_groups);
  grad.row_groups = divide_up(g.oh, grad.group_rows);
  const Index image_bytes = halo_bytes + g.oh * row_bytes;
  grad.group_images = grad.row_groups > 1 ? 1 : group_length(g.oh * g.ow, image_bytes, 0, large_sums);
  return grad;
}

template <class T>
void weight_grad(const Geometry& g, const T* x, const T* gy, T* gw) {
  const simd::WeightGrad grad = weight_grad_groups<T>(g);
  constexpr Index size = static_cast<Index>(sizeof(T));
  const Index groups = g.n * grad.row_groups;
  const Index sum_size = g.kh * g.kw * g.ci * grad.padded_outputs;
  const Index chunks = std::clamp(
      std::min({kTasks, groups, g.n * g.oh * g.ow / kMinChunkPixels, kMaxSumsBytes / (sum_size * size)}),
      Index{1}, kTasks);
  const Index parts = std::min(kTasks / chunks, g.kh * g.kw * g.ci / 16 + 1);
  const Buffer<T> sums(chunks * sum_size);
  parallel_for(chunks * parts, 1, [&](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      const Index chunk = task / parts;
      simd::weight_grad(grad, x, gy, sums.data() + chunk * sum_size, groups * chunk / chunks,
                        groups * (chunk + 1) / chunks, task % parts, parts);
    }
  });

  const Index weight_rows = g.kh * g.kw * g.ci;
  parallel_for(weight_rows, divide_up(kElementwiseGrain / 4, g.co), [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      T* to = gw + row * g.co;
      const T* from = sums.data() + row * grad.padded_outputs;
      std::copy(from, from + g.co, to);
      for (Index chunk = 1; chunk < chunks; ++chunk) {
        from += sum_size;
        for (Index c = 0; c < g.co; ++c) to[c] += from[c];
      }
    }
  });
}

std::atomic<bool> winograd_allowed{true};

std::array<winograd::Sum, 1> one_winograd_sum(const Tensor& a, const Tensor& b, const Tensor& result,
                                              const winograd::Epilogue& epilogue = {}) {
  return {{{.pairs = {{{a.data<float>(), b.data<float>()}, {}}},
            .result = result.data<float>(),
            .epilogue = epilogue}}};
}

winograd::Epilogue winograd_epilogue(const ConvEpilogue& epilogue) {
  const auto data = [](const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; };
  return {.bias = data(epilogue.bias),
          .residual = data(epilogue.residual),
          .relu = epilogue.relu,
          .mask = data(epilogue.mask)};
}

/// The tensor that an operation writes its result to: `sum`, to be added to, or a new one.
Tensor target(const Shape& shape, DType dtype, const Tensor& sum, std::string_view op) {
  if (!sum.defined()) return Tensor::empty(shape, dtype);
  check(sum.shape() == shape && sum.dtype() == dtype, "[{}] the result is {} {} and cannot be added to {} {}",
        op, dtype, shape, sum.dtype(), sum.shape());
  return sum;
}

}  // namespace

std::optional<winograd::Problem> winograd_problem(DType dtype, const Shape& x, const Shape& w, const Shape& y,
                                                  const ConvParams& params, ConvDirection direction) {
  if (!winograd_allowed || dtype != DType::f32 || w[0] != 3 || w[1] != 3 || params.stride_h != 1 ||
      params.stride_w != 1 || params.groups != 1) {
    return std::nullopt;
  }
  winograd::Problem p{x[0], x[1], x[2], x[3], y[1], y[2], y[3], params.pad_h, params.pad_w};
  if (direction == ConvDirection::backward) {
    p = {x[0], y[1], y[2], y[3], x[1], x[2], x[3], 2 - params.pad_h, 2 - params.pad_w};
  }
  if (!winograd::worthwhile(p)) return std::nullopt;
  return p;
}

simd::WeightGrad plan_weight_grad(const Shape& x, const Shape& w, const Shape& y, const ConvParams& params,
                                  DType dtype) {
  return dispatch_floating(dtype, "plan_weight_grad",
                           [&]<class T>() { return weight_grad_groups<T>(geometry(x, w, y, params)); });
}

void direct_conv2d(const Tensor& x, const Tensor& w, const ConvParams& params, const Tensor& bias,
                   const Tensor& y, bool add, const ConvEpilogue& epilogue) {
  dispatch_floating(x.dtype(), "conv2d", [&]<class T>() {
    forward<T>(geometry(x.shape(), w.shape(), y.shape(), params), x.data<T>(), w.data<T>(),
               {y, add, bias.defined() ? bias.data<T>() : nullptr, epilogue});
  });
}

void direct_input_grad(const Tensor& gy, const Tensor& w, const ConvParams& params, const Tensor& gx,
                       bool add, const ConvEpilogue& epilogue) {
  dispatch_floating(gy.dtype(), "conv2d_input_grad", [&]<class T>() {
    input_grad<T>(geometry(gx.shape(), w.shape(), gy.shape(), params), gy.data<T>(), w.data<T>(),
                  {gx, add, nullptr, epilogue});
  });
}

void direct_weight_grad(const Tensor& x, const Tensor& gy, const ConvParams& params, const Tensor& gw) {
  dispatch_floating(x.dtype(), "conv2d_weight_grad", [&]<class T>() {
    weight_grad(geometry(x.shape(), gw.shape(), gy.shape(), params), x.data<T>(), gy.data<T>(), gw.data<T>());
  });
}

void set_winograd(bool enabled) {
  winograd_allowed = enabled;
}

bool winograd_enabled() {
  return winograd_allowed;
}

Shape conv2d_output_shape(const Shape& x, const Shape& w, const ConvParams& params) {
  return checked_output_shape(x, w, params, "conv2d");
}

Tensor conv2d(const Tensor& x, const Tensor& w, const ConvParams& params, const Tensor& sum,
              const ConvEpilogue& epilogue) {
  const auto& [bias, residual, relu, mask] = epilogue;
  check_dtypes(x, w, "conv2d");
  const Shape y_shape = checked_output_shape(x.shape(), w.shape(), params, "conv2d");
  if (bias.defined()) {
    check(bias.shape() == Shape{w.dim(3)} && bias.dtype() == w.dtype(),
          "[conv2d] the bias is {} {} but the weights {} need {} [{}]", bias.dtype(), bias.shape(), w.shape(),
          w.dtype(), w.dim(3));
  }
  if (residual.defined()) {
    check(!sum.defined(), "[conv2d] a residual cannot be added beside a sum; add one of them to the other");
    check(residual.shape() == y_shape && residual.dtype() == x.dtype(),
          "[conv2d] the residual is {} {} but the result {} {}", residual.dtype(), residual.shape(),
          x.dtype(), y_shape);
  }
  if (mask.defined()) {
    check(mask.shape() == y_shape && mask.dtype() == x.dtype(),
          "[conv2d] the mask is {} {} but the result {} {}", mask.dtype(), mask.shape(), x.dtype(), y_shape);
  }
  Tensor y = target(y_shape, x.dtype(), sum, "conv2d");
  if (y.numel() == 0) return y;
  const ConvEpilogue rest{{}, residual, relu, mask};  // direct sums begin with the bias
  if (params.groups == 1) {
    if (const auto problem =
            winograd_problem(x.dtype(), x.shape(), w.shape(), y_shape, params, ConvDirection::forward)) {
      const ConvEpilogue all{bias, sum.defined() ? sum : residual, relu, mask};
      winograd::forward(*problem, one_winograd_sum(x, w, y, winograd_epilogue(all)));
      return y;
    }
    direct_conv2d(x, w, params, bias, y, sum.defined(), rest);
  } else {
    grouped_conv2d(x, w, params, bias, y, sum.defined(), rest);
  }
  return y;
}

Tensor conv2d_input_grad(const Tensor& gy, const Tensor& w, const Shape& x_shape, const ConvParams& params,
                         const Tensor& sum) {
  check_dtypes(gy, w, "conv2d_input_grad");
  const Shape y_shape = checked_output_shape(x_shape, w.shape(), params, "conv2d_input_grad");
  check_output_grad(gy, y_shape, "conv2d_input_grad");
  Tensor gx = target(x_shape, gy.dtype(), sum, "conv2d_input_grad");
  if (gx.numel() == 0) return gx;
  if (params.groups > 1) {
    grouped_input_grad(gy, w, params, gx, sum.defined());
  } else if (const auto problem =
                 winograd_problem(gy.dtype(), x_shape, w.shape(), y_shape, params, ConvDirection::backward)) {
    winograd::input_grad(*problem, one_winograd_sum(gy, w, gx, winograd_epilogue({.residual = sum})));
  } else {
    direct_input_grad(gy, w, params, gx, sum.defined());
  }
  return gx;
}

Tensor conv2d_weight_grad(const Tensor& x, const Tensor& gy, const Shape& w_shape, const ConvParams& params) {
  check_dtypes(x, gy, "conv2d_weight_grad");
  const Shape y_shape = checked_output_shape(x.shape(), w_shape, params, "conv2d_weight_grad");
  check_output_grad(gy, y_shape, "conv2d_weight_grad");
  if (gy.numel() == 0) return Tensor::zeros(w_shape, x.dtype());
  Tensor gw = Tensor::empty(w_shape, x.dtype());
  if (params.groups > 1) {
    grouped_weight_grad(x, gy, params, gw);
  } else if (const auto problem =
                 winograd_problem(x.dtype(), x.shape(), w_shape, y_shape, params, ConvDirection::forward)) {
    winograd::weight_grad(*problem, one_winograd_sum(x, gy, gw));
  } else {
    direct_weight_grad(x, gy, params, gw);
  }
  return gw;
}

}  // namespace goshawk::kernels
