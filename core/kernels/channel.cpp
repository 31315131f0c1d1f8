#include "core/kernels/channel.hpp"

#include "core/parallel.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/channel.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef GOSHAWK_CORE_KERNELS_CHANNEL_ARGS
#define GOSHAWK_CORE_KERNELS_CHANNEL_ARGS
namespace goshawk::kernels {

// A run of rows of [rows, channels] operands; unused pointers are null.
template <class T>
struct AffineRows {
  const T *x, *s, *t, *residual;
  T* y;
  std::int64_t rows, channels;
  bool relu;
};

template <class T>
struct ReduceRows {
  const T *a, *b;   // b null: plain sum
  const T* centre;  // subtracted from a and b per channel when not null
  T* sums;          // [channels]
  std::int64_t rows, channels;
};

template <class T>
struct MaskedReduceRows {
  const T *gy, *y, *x, *mean;  // y null: no mask
  T* masked;                   // gy where y > 0; null: not wanted
  T *sum_g, *sum_gx;           // [channels]: Σ g and Σ g (x − mean)
  std::int64_t rows, channels;
};

template <class T>
struct NormBackwardRows {
  const T *gy, *y, *x, *a, *b, *c;  // gx = a · g + b · x + c per channel; y null: no mask
  T* gx;
  std::int64_t rows, channels;
};

}  // namespace goshawk::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Each function below runs `body` with full vectors over the channels and then, one lane at a time, over the
// rest.
template <class T, class Body>
HWY_INLINE void over_channels(std::int64_t channels, const Body& body) {
  const hn::ScalableTag<T> full;
  const hn::CappedTag<T, 1> one;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(full));
  std::int64_t c = 0;
  for (; c + lanes <= channels; c += lanes) body(full, c);
  for (; c < channels; ++c) body(one, c);
}

template <class T>
struct AffineBody {
  const AffineRows<T>& p;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t c) const {
    const auto s = hn::LoadU(d, p.s + c);
    const auto t = p.t == nullptr ? hn::Zero(d) : hn::LoadU(d, p.t + c);
    const auto zero = hn::Zero(d);
    for (std::int64_t r = 0; r < p.rows; ++r) {
      const std::int64_t i = r * p.channels + c;
      auto y = hn::MulAdd(hn::LoadU(d, p.x + i), s, t);
      if (p.residual != nullptr) y = hn::Add(y, hn::LoadU(d, p.residual + i));
      if (p.relu) y = hn::Max(y, zero);
      hn::StoreU(y, d, p.y + i);
    }
  }
};

template <class T>
struct ReduceBody {
  const ReduceRows<T>& p;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t c) const {
    const auto centre = p.centre == nullptr ? hn::Zero(d) : hn::LoadU(d, p.centre + c);
    // Four independent sums hide the latency of the addition.
    auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
    const std::int64_t n = p.channels;
    std::int64_t r = 0;
    const T* a = p.a + c;
    if (p.b == nullptr) {
      for (; r + 4 <= p.rows; r += 4, a += 4 * n) {
        s0 = hn::Add(s0, hn::Sub(hn::LoadU(d, a), centre));
        s1 = hn::Add(s1, hn::Sub(hn::LoadU(d, a + n), centre));
        s2 = hn::Add(s2, hn::Sub(hn::LoadU(d, a + 2 * n), centre));
        s3 = hn::Add(s3, hn::Sub(hn::LoadU(d, a + 3 * n), centre));
      }
      for (; r < p.rows; ++r, a += n) s0 = hn::Add(s0, hn::Sub(hn::LoadU(d, a), centre));
    } else {
      const T* b = p.b + c;
      const auto centred = [&](const T* q) HWY_ATTR { return hn::Sub(hn::LoadU(d, q), centre); };
      for (; r + 4 <= p.rows; r += 4, a += 4 * n, b += 4 * n) {
        s0 = hn::MulAdd(centred(a), centred(b), s0);
        s1 = hn::MulAdd(centred(a + n), centred(b + n), s1);
        s2 = hn::MulAdd(centred(a + 2 * n), centred(b + 2 * n), s2);
        s3 = hn::MulAdd(centred(a + 3 * n), centred(b + 3 * n), s3);
      }
      for (; r < p.rows; ++r, a += n, b += n) s0 = hn::MulAdd(centred(a), centred(b), s0);
    }
    hn::StoreU(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), d, p.sums + c);
  }
};

template <class T>
struct MaskedReduceBody {
  const MaskedReduceRows<T>& p;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t c) const {
    const auto mean = hn::LoadU(d, p.mean + c);
    const auto zero = hn::Zero(d);
    auto g0 = zero, g1 = zero, gx0 = zero, gx1 = zero;
    const auto step = [&](std::int64_t r, auto& sum_g, auto& sum_gx) HWY_ATTR {
      const std::int64_t i = r * p.channels + c;
      auto g = hn::LoadU(d, p.gy + i);
      if (p.y != nullptr) g = hn::IfThenElseZero(hn::Gt(hn::LoadU(d, p.y + i), zero), g);
      if (p.masked != nullptr) hn::StoreU(g, d, p.masked + i);
      sum_g = hn::Add(sum_g, g);
      sum_gx = hn::MulAdd(g, hn::Sub(hn::LoadU(d, p.x + i), mean), sum_gx);
    };
    std::int64_t r = 0;
    for (; r + 2 <= p.rows; r += 2) {
      step(r, g0, gx0);
      step(r + 1, g1, gx1);
    }
    if (r < p.rows) step(r, g0, gx0);
    hn::StoreU(hn::Add(g0, g1), d, p.sum_g + c);
    hn::StoreU(hn::Add(gx0, gx1), d, p.sum_gx + c);
  }
};

template <class T>
struct NormBackwardBody {
  const NormBackwardRows<T>& p;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t channel) const {
    const auto a = hn::LoadU(d, p.a + channel), b = hn::LoadU(d, p.b + channel),
               c = hn::LoadU(d, p.c + channel);
    const auto zero = hn::Zero(d);
    for (std::int64_t r = 0; r < p.rows; ++r) {
      const std::int64_t i = r * p.channels + channel;
      auto g = hn::LoadU(d, p.gy + i);
      if (p.y != nullptr) g = hn::IfThenElseZero(hn::Gt(hn::LoadU(d, p.y + i), zero), g);
      hn::StoreU(hn::MulAdd(a, g, hn::MulAdd(b, hn::LoadU(d, p.x + i), c)), d, p.gx + i);
    }
  }
};

void AffineF32(const AffineRows<float>& p) {
  over_channels<float>(p.channels, AffineBody<float>{p});
}
void AffineF64(const AffineRows<double>& p) {
  over_channels<double>(p.channels, AffineBody<double>{p});
}
void ReduceF32(const ReduceRows<float>& p) {
  over_channels<float>(p.channels, ReduceBody<float>{p});
}
void ReduceF64(const ReduceRows<double>& p) {
  over_channels<double>(p.channels, ReduceBody<double>{p});
}
void MaskedReduceF32(const MaskedReduceRows<float>& p) {
  over_channels<float>(p.channels, MaskedReduceBody<float>{p});
}
void MaskedReduceF64(const MaskedReduceRows<double>& p) {
  over_channels<double>(p.channels, MaskedReduceBody<double>{p});
}
void NormBackwardF32(const NormBackwardRows<float>& p) {
  over_channels<float>(p.channels, NormBackwardBody<float>{p});
}
void NormBackwardF64(const NormBackwardRows<double>& p) {
  over_channels<double>(p.channels, NormBackwardBody<double>{p});
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels {
namespace {

HWY_EXPORT(AffineF32);
HWY_EXPORT(AffineF64);
HWY_EXPORT(ReduceF32);
HWY_EXPORT(ReduceF64);
HWY_EXPORT(MaskedReduceF32);
HWY_EXPORT(MaskedReduceF64);
HWY_EXPORT(NormBackwardF32);
HWY_EXPORT(NormBackwardF64);

void run(const AffineRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(AffineF32)(p);
}
void run(const AffineRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(AffineF64)(p);
}
void run(const ReduceRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(ReduceF32)(p);
}
void run(const ReduceRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(ReduceF64)(p);
}
void run(const MaskedReduceRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(MaskedReduceF32)(p);
}
void run(const MaskedReduceRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(MaskedReduceF64)(p);
}
void run(const NormBackwardRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(NormBackwardF32)(p);
}
void run(const NormBackwardRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(NormBackwardF64)(p);
}

// The rows and channels of a tensor, and how many rows make a chunk (about 64 KiB of f32, so a second pass
// over the chunk is served by the cache).
struct Rows {
  explicit Rows(const Tensor& x, std::string_view op) {
    check(x.ndim() >= 1, "[{}] needs a tensor with a channel dimension but was given a scalar", op);
    channels = x.shape().back();
    rows = channels == 0 ? 0 : x.numel() / channels;
    grain = std::max<std::int64_t>(1, kElementwiseGrain / std::max<std::int64_t>(1, channels));
  }
  std::int64_t chunks() const { return (rows + grain - 1) / grain; }
  std::int64_t rows, channels, grain;
};

void check_channels(const Tensor& v, const Rows& rows, const Tensor& x, std::string_view op) {
  check(v.ndim() == 1 && v.dim(0) == rows.channels && v.dtype() == x.dtype(),
        "[{}] a per-channel operand must be {} [{}] to match {}, not {} {}", op, x.dtype(), rows.channels,
        x.shape(), v.dtype(), v.shape());
}

template <class T>
T* optional_data(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// Adds the chunks' partial results [chunks, width] in chunk order, in f64.
template <class T>
std::vector<double> combine(const Tensor& partial, std::int64_t chunks, std::int64_t width) {
  std::vector<double> sums(static_cast<std::size_t>(width));
  const T* from = partial.data<T>();
  for (std::int64_t k = 0; k < chunks; ++k) {
    for (std::int64_t c = 0; c < width; ++c) sums[static_cast<std::size_t>(c)] += from[k * width + c];
  }
  return sums;
}

template <class T>
Tensor to_tensor(const std::vector<double>& values) {
  Tensor t = Tensor::empty({static_cast<std::int64_t>(values.size())}, dtype_of<T>);
  std::transform(values.begin(), values.end(), t.data<T>(), [](double v) { return static_cast<T>(v); });
  return t;
}

Tensor reduce(const Tensor& a, const Tensor& b, std::string_view op) {
  const Rows rows(a, op);
  return dispatch_floating(a.dtype(), op, [&]<class T>() {
    const Tensor partial = Tensor::empty({rows.chunks(), rows.channels}, a.dtype());
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      run(ReduceRows<T>{.a = a.data<T>() + begin * rows.channels,
                        .b = b.defined() ? b.data<T>() + begin * rows.channels : nullptr,
                        .centre = nullptr,
                        .sums = partial.data<T>() + begin / rows.grain * rows.channels,
                        .rows = end - begin,
                        .channels = rows.channels});
    });
    return to_tensor<T>(combine<T>(partial, rows.chunks(), rows.channels));
  });
}

}  // namespace

Tensor channel_affine(const Tensor& x, const Tensor& s, const Tensor& t, const Tensor& residual, bool relu) {
  const Rows rows(x, "channel_affine");
  check_channels(s, rows, x, "channel_affine");
  if (t.defined()) check_channels(t, rows, x, "channel_affine");
  if (residual.defined()) check_same(x, residual, "channel_affine");
  Tensor y = Tensor::empty_like(x);
  dispatch_floating(x.dtype(), "channel_affine", [&]<class T>() {
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * rows.channels;
      run(AffineRows<T>{.x = x.data<T>() + at,
                        .s = s.data<T>(),
                        .t = optional_data<T>(t),
                        .residual = residual.defined() ? residual.data<T>() + at : nullptr,
                        .y = y.data<T>() + at,
                        .rows = end - begin,
                        .channels = rows.channels,
                        .relu = relu});
    });
  });
  return y;
}

Tensor channel_sum(const Tensor& x) {
  return reduce(x, {}, "channel_sum");
}

Tensor channel_dot(const Tensor& a, const Tensor& b) {
  check_same(a, b, "channel_dot");
  return reduce(a, b, "channel_dot");
}

ChannelMoments channel_moments(const Tensor& x) {
  const Rows rows(x, "channel_moments");
  check(rows.rows > 0, "[channel_moments] a tensor of shape {} has no elements to average", x.shape());
  return dispatch_floating(x.dtype(), "channel_moments", [&]<class T>() {
    const std::int64_t n = rows.channels;
    const Tensor means = Tensor::empty({rows.chunks(), n}, x.dtype());
    const Tensor squares = Tensor::empty({rows.chunks(), n}, x.dtype());
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const T* from = x.data<T>() + begin * n;
      T* mean = means.data<T>() + begin / rows.grain * n;
      T* square = squares.data<T>() + begin / rows.grain * n;
      const std::int64_t count = end - begin;
      run(ReduceRows<T>{from, nullptr, nullptr, mean, count, n});
      for (std::int64_t c = 0; c < n; ++c) mean[c] /= static_cast<T>(count);
      run(ReduceRows<T>{from, from, mean, square, count, n});
    });
    std::vector<double> mean(static_cast<std::size_t>(n)), square(static_cast<std::size_t>(n));
    double count = 0;
    for (std::int64_t k = 0; k < rows.chunks(); ++k) {
      const auto chunk = static_cast<double>(std::min(rows.grain, rows.rows - k * rows.grain));
      const double total = count + chunk;
      for (std::int64_t c = 0; c < n; ++c) {
        const auto i = static_cast<std::size_t>(c);
        const double delta = means.data<T>()[k * n + c] - mean[i];
        mean[i] += delta * chunk / total;
        square[i] += squares.data<T>()[k * n + c] + delta * delta * count * chunk / total;
      }
      count = total;
    }
    for (double& v : square) v /= count;
    return ChannelMoments{to_tensor<T>(mean), to_tensor<T>(square)};
  });
}

BatchNormGradients batch_norm_backward(const Tensor& gy, const Tensor& x, const Tensor& gamma,
                                       const Tensor& mean, const Tensor& inv_std, const Tensor& y, bool relu,
                                       bool residual_grad) {
  check_same(gy, x, "batch_norm_backward");
  const Rows rows(x, "batch_norm_backward");
  const std::int64_t n = rows.channels;
  return dispatch_floating(x.dtype(), "batch_norm_backward", [&]<class T>() {
    BatchNormGradients result;
    // Without a mask the residual's gradient is gy itself.
    const bool masked = relu && residual_grad;
    if (residual_grad) result.residual = relu ? Tensor::empty_like(gy) : gy;
    const T* mask = relu ? y.data<T>() : nullptr;
    const Tensor sums_g = Tensor::empty({rows.chunks(), n}, x.dtype());
    const Tensor sums_gx = Tensor::empty({rows.chunks(), n}, x.dtype());
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * n, chunk = begin / rows.grain * n;
      run(MaskedReduceRows<T>{.gy = gy.data<T>() + at,
                              .y = mask == nullptr ? nullptr : mask + at,
                              .x = x.data<T>() + at,
                              .mean = mean.data<T>(),
                              .masked = masked ? result.residual.template data<T>() + at : nullptr,
                              .sum_g = sums_g.data<T>() + chunk,
                              .sum_gx = sums_gx.data<T>() + chunk,
                              .rows = end - begin,
                              .channels = n});
    });
    const std::vector<double> sum_g = combine<T>(sums_g, rows.chunks(), n);
    std::vector<double> sum_gx = combine<T>(sums_gx, rows.chunks(), n);

    // gx = γ s (g − mean(g) − x̂ mean(g x̂)) with s = inv_std, x̂ = (x − μ) s: an affine map of g and x per
    // channel.
    const Tensor a = Tensor::empty({n}, x.dtype()), b = Tensor::empty({n}, x.dtype()),
                 c = Tensor::empty({n}, x.dtype());
    const auto count = static_cast<double>(rows.rows);
    for (std::int64_t k = 0; k < n; ++k) {
      const auto i = static_cast<std::size_t>(k);
      const double s = inv_std.data<T>()[k];
      const double scale = gamma.data<T>()[k] * s;
      const double slope = -scale * s * s * sum_gx[i] / count;
      a.data<T>()[k] = static_cast<T>(scale);
      b.data<T>()[k] = static_cast<T>(slope);
      c.data<T>()[k] = static_cast<T>(-scale * sum_g[i] / count - slope * mean.data<T>()[k]);
      sum_gx[i] *= s;
    }
    result.ggamma = to_tensor<T>(sum_gx);
    result.gbeta = to_tensor<T>(sum_g);
    result.gx = Tensor::empty_like(x);
    // The masked gradient, where it was written, saves reading the mask again.
    const T* g = masked ? result.residual.template data<T>() : gy.data<T>();
    const T* second_mask = masked ? nullptr : mask;
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * n;
      run(NormBackwardRows<T>{.gy = g + at,
                              .y = second_mask == nullptr ? nullptr : second_mask + at,
                              .x = x.data<T>() + at,
                              .a = a.data<T>(),
                              .b = b.data<T>(),
                              .c = c.data<T>(),
                              .gx = result.gx.template data<T>() + at,
                              .rows = end - begin,
                              .channels = n});
    });
    return result;
  });
}

}  // namespace goshawk::kernels
#endif
