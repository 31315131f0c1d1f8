#include "core/kernels/channel.hpp"

#include "core/kernels/channel_rows.hpp"
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

}  // namespace goshawk::kernels
#endif

#include "core/kernels/channel_rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

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

}  // namespace goshawk::kernels
#endif
