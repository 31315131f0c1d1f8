#include "core/kernels/conv_groups.hpp"

#include <algorithm>

#include "core/kernels/channel.hpp"
#include "core/kernels/conv_depthwise.hpp"
#include "core/kernels/conv_plan.hpp"
#include "core/parallel.hpp"

namespace goshawk::kernels {
namespace {

using Index = std::int64_t;

// Up to so many output channels in a group the convolution is a sum of depthwise ones, if it is of at most so
// many.
constexpr Index kFewOutputs = 4, kFewInputs = 8;

struct Groups {
  Index count, in, out;  // channels of a group
  Groups(const Shape& w, const ConvParams& params)
      : count(params.groups), in(w[2]), out(w[3] / params.groups) {}
  bool depthwise() const { return out <= kFewOutputs && in <= kFewInputs; }
};

/// Calls f(begin, end) for chunks of rows of `channels` elements.
template <class F>
void over_rows(Index rows, Index channels, const F& f) {
  parallel_for(rows, row_grain(channels), f);
}

Shape with_channels(Shape shape, Index channels) {
  shape[shape.size() - 1] = channels;
  return shape;
}

/// Channels [first, first + count) of t [..., C].
Tensor take_channels(const Tensor& t, Index first, Index count) {
  Tensor part = Tensor::empty(with_channels(t.shape(), count), t.dtype());
  const Index channels = t.shape().back();
  dispatch_floating(t.dtype(), "conv2d", [&]<class T>() {
    const T* const from = t.data<T>() + first;
    T* const to = part.data<T>();
    over_rows(part.numel() / count, count, [=](Index begin, Index end) {
      for (Index row = begin; row < end; ++row) std::copy_n(from + row * channels, count, to + row * count);
    });
  });
  return part;
}

/// Writes `part` to the channels of t from `first` on, or adds it to them.
void put_channels(const Tensor& t, const Tensor& part, Index first, bool add) {
  const Index channels = t.shape().back(), count = part.shape().back();
  dispatch_floating(t.dtype(), "conv2d", [&]<class T>() {
    const T* const from = part.data<T>();
    T* const to = t.data<T>() + first;
    over_rows(part.numel() / count, count, [=](Index begin, Index end) {
      for (Index row = begin; row < end; ++row) {
        for (Index c = 0; c < count; ++c) {
          const T value = from[row * count + c];
          to[row * channels + c] = add ? to[row * channels + c] + value : value;
        }
      }
    });
  });
}

ConvParams of_one_group(ConvParams params) {
  params.groups = 1;
  return params;
}

depthwise::Problem problem(const Shape& x, const Shape& w, const Shape& y, const ConvParams& p) {
  return {x[0], x[1], x[2], w[3], w[0], w[1], y[1], y[2], p.stride_h, p.stride_w, p.pad_h, p.pad_w};
}

/// For every output channel, channel i of its group: [N,H,W,Co].
Tensor inputs_of_outputs(const Tensor& x, const Groups& g, Index i) {
  if (g.in == 1 && g.out == 1) return x;
  Tensor spread = Tensor::empty(with_channels(x.shape(), g.count * g.out), x.dtype());
  dispatch_floating(x.dtype(), "conv2d", [&]<class T>() {
    const T* const from = x.data<T>() + i;
    T* const to = spread.data<T>();
    over_rows(spread.numel() / (g.count * g.out), g.count * g.out, [=](Index begin, Index end) {
      for (Index group = begin * g.count; group < end * g.count; ++group) {
        for (Index k = 0; k < g.out; ++k) to[group * g.out + k] = from[group * g.in];
      }
    });
  });
  return spread;
}

/// Its adjoint: writes to channel i of every group of gx, or adds to it.
void sum_of_outputs(const Tensor& spread, const Groups& g, Index i, const Tensor& gx, bool add) {
  dispatch_floating(gx.dtype(), "conv2d", [&]<class T>() {
    const T* const from = spread.data<T>();
    T* const to = gx.data<T>() + i;
    over_rows(spread.numel() / (g.count * g.out), g.count * g.out, [=](Index begin, Index end) {
      for (Index group = begin * g.count; group < end * g.count; ++group) {
        T sum = from[group * g.out];
        for (Index k = 1; k < g.out; ++k) sum += from[group * g.out + k];
        to[group * g.in] = add ? to[group * g.in] + sum : sum;
      }
    });
  });
}

/// w[:, :, i, :] as [KH, KW, 1, Co].
Tensor kernel_of_input(const Tensor& w, Index i) {
  if (w.dim(2) == 1) return w;
  const Index co = w.dim(3);
  return take_channels(w.reshape({w.dim(0), w.dim(1), 1, -1}), i * co, co);
}

void sum_conv2d(const Tensor& x, const Tensor& w, const ConvParams& params, const Tensor& bias,
                const Tensor& y, bool add) {
  const Groups g(w.shape(), params);
  if (g.depthwise()) {
    dispatch_floating(x.dtype(), "conv2d", [&]<class T>() {
      for (Index i = 0; i < g.in; ++i) {
        const Tensor input = inputs_of_outputs(x, g, i), kernel = kernel_of_input(w, i);
        const T* const first = bias.defined() && i == 0 ? bias.data<T>() : nullptr;
        depthwise::forward(problem(x.shape(), w.shape(), y.shape(), params), input.data<T>(),
                           kernel.data<T>(), first, y.data<T>(), add || i > 0);
      }
    });
    return;
  }
  for (Index group = 0; group < g.count; ++group) {
    const Index first = group * g.out;
    const Tensor part = Tensor::empty(with_channels(y.shape(), g.out), y.dtype());
    direct_conv2d(take_channels(x, group * g.in, g.in), take_channels(w, first, g.out), of_one_group(params),
                  bias.defined() ? take_channels(bias, first, g.out) : Tensor(), part, false);
    put_channels(y, part, first, add);
  }
}

void sum_input_grad(const Tensor& gy, const Tensor& w, const ConvParams& params, const Tensor& gx, bool add) {
  const Groups g(w.shape(), params);
  if (g.depthwise()) {
    dispatch_floating(gx.dtype(), "conv2d_input_grad", [&]<class T>() {
      const depthwise::Problem p = problem(gx.shape(), w.shape(), gy.shape(), params);
      if (g.in == 1 && g.out == 1) {
        depthwise::input_grad(p, gy.data<T>(), w.data<T>(), gx.data<T>(), add);
        return;
      }
      const Tensor spread = Tensor::empty(with_channels(gx.shape(), w.dim(3)), gx.dtype());
      for (Index i = 0; i < g.in; ++i) {
        const Tensor kernel = kernel_of_input(w, i);
        depthwise::input_grad(p, gy.data<T>(), kernel.data<T>(), spread.data<T>(), false);
        sum_of_outputs(spread, g, i, gx, add);
      }
    });
    return;
  }
  for (Index group = 0; group < g.count; ++group) {
    const Tensor part = Tensor::empty(with_channels(gx.shape(), g.in), gx.dtype());
    direct_input_grad(take_channels(gy, group * g.out, g.out), take_channels(w, group * g.out, g.out),
                      of_one_group(params), part, false);
    put_channels(gx, part, group * g.in, add);
  }
}

}  // namespace

void grouped_conv2d(const Tensor& x, const Tensor& w, const ConvParams& params, const Tensor& bias,
                    const Tensor& y, bool add, const ConvEpilogue& epilogue) {
  sum_conv2d(x, w, params, bias, y, add);
  if (!epilogue.empty()) apply_epilogue(y, epilogue);
}

void grouped_input_grad(const Tensor& gy, const Tensor& w, const ConvParams& params, const Tensor& gx,
                        bool add, const ConvEpilogue& epilogue) {
  sum_input_grad(gy, w, params, gx, add);
  if (!epilogue.empty()) apply_epilogue(gx, epilogue);
}

void grouped_weight_grad(const Tensor& x, const Tensor& gy, const ConvParams& params, const Tensor& gw) {
  const Groups g(gw.shape(), params);
  if (g.depthwise()) {
    dispatch_floating(x.dtype(), "conv2d_weight_grad", [&]<class T>() {
      const Shape shape{gw.dim(0), gw.dim(1), 1, gw.dim(3)};
      for (Index i = 0; i < g.in; ++i) {
        const Tensor input = inputs_of_outputs(x, g, i);
        const Tensor part = g.in == 1 ? gw : Tensor::empty(shape, gw.dtype());
        depthwise::weight_grad(problem(x.shape(), gw.shape(), gy.shape(), params), input.data<T>(),
                               gy.data<T>(), part.data<T>());
        if (g.in > 1) put_channels(gw.reshape({shape[0], shape[1], 1, -1}), part, i * shape[3], false);
      }
    });
    return;
  }
  for (Index group = 0; group < g.count; ++group) {
    const Tensor part = Tensor::empty(with_channels(gw.shape(), g.out), gw.dtype());
    direct_weight_grad(take_channels(x, group * g.in, g.in), take_channels(gy, group * g.out, g.out),
                       of_one_group(params), part);
    put_channels(gw, part, group * g.out, false);
  }
}

}  // namespace goshawk::kernels
