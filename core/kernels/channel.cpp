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
  const T *x, *s, *t, *residual;  // s null: 1
  const T* mask;                  // not null: 0 where it is ≤ 0
  T* y;                           // may be x
  std::int64_t rows, channels;
  bool relu;
};

/// Sums of x − centre and of its square, per channel.
template <class T>
struct DeviationRows {
  const T *x, *centre;
  T *sums, *squares;
  std::int64_t rows, channels;
};

template <class T>
struct MaskedSumRows {
  const T *gy, *y;
  T *g, *sums;  // g may be gy
  std::int64_t rows, channels;
};

template <class T>
struct ReduceRows {
  const T *a, *b;  // b null: plain sum
  T* sums;         // [channels]
  std::int64_t rows, channels;
};

}  // namespace goshawk::kernels
#endif

#include "core/kernels/channel_rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// The coefficients of a body that has none.
struct None {};

/// A body of SumSlab<4> that sums one number per channel, but for `add`, which says what.
template <class Operands>
struct OneSum {
  const Operands& p;
  template <class D>
  HWY_INLINE HWY_ATTR None load(D /*d*/, std::int64_t /*c*/) const {
    return {};
  }
  template <class D>
  HWY_INLINE HWY_ATTR hn::Vec<D> zero(D d) const {
    return hn::Zero(d);
  }
  template <class D, class V>
  HWY_INLINE HWY_ATTR void store(D d, std::int64_t c, V s0, V s1, V s2, V s3) const {
    hn::StoreU(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), d, p.sums + c);
  }
};

template <class T>
struct AffineBody {
  const AffineRows<T>& p;
  template <class D>
  struct Coefficients {
    hn::Vec<D> s, t;
  };
  template <class D>
  HWY_INLINE HWY_ATTR Coefficients<D> load(D d, std::int64_t c) const {
    return {p.s == nullptr ? hn::Set(d, T{1}) : hn::LoadU(d, p.s + c),
            p.t == nullptr ? hn::Zero(d) : hn::LoadU(d, p.t + c)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t i, const Coefficients<D>& k) const {
    auto y = hn::MulAdd(hn::LoadU(d, p.x + i), k.s, k.t);
    if (p.residual != nullptr) y = hn::Add(y, hn::LoadU(d, p.residual + i));
    if (p.relu) y = past_relu(y, y);
    if (p.mask != nullptr) y = past_relu(hn::LoadU(d, p.mask + i), y);
    hn::StoreU(y, d, p.y + i);
  }
};

template <class T>
struct DeviationBody {
  const DeviationRows<T>& p;
  template <class D>
  struct Sums {
    hn::Vec<D> deviation, square;
  };
  template <class D>
  HWY_INLINE HWY_ATTR hn::Vec<D> load(D d, std::int64_t c) const {
    return hn::LoadU(d, p.centre + c);
  }
  template <class D>
  HWY_INLINE HWY_ATTR Sums<D> zero(D d) const {
    return {hn::Zero(d), hn::Zero(d)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR void add(D d, std::int64_t i, hn::Vec<D> centre, Sums<D>& sums) const {
    const auto deviation = hn::Sub(hn::LoadU(d, p.x + i), centre);
    sums.deviation = hn::Add(sums.deviation, deviation);
    sums.square = hn::MulAdd(deviation, deviation, sums.square);
  }
  template <class D>
  HWY_INLINE HWY_ATTR void store(D d, std::int64_t c, const Sums<D>& even, const Sums<D>& odd) const {
    hn::StoreU(hn::Add(even.deviation, odd.deviation), d, p.sums + c);
    hn::StoreU(hn::Add(even.square, odd.square), d, p.squares + c);
  }
};

template <class T>
void deviation_rows(const DeviationRows<T>& p) {
  const DeviationBody<T> body{p};
  over_slabs<T, kSlabVectors>(p.channels, SumSlab<2, DeviationBody<T>>{body, p.rows, p.channels});
}

template <class T>
struct MaskedSumBody : OneSum<MaskedSumRows<T>> {
  template <class D, class V>
  HWY_INLINE HWY_ATTR void add(D d, std::int64_t i, None /*k*/, V& sum) const {
    const MaskedSumRows<T>& rows = this->p;
    const auto g = past_relu(hn::LoadU(d, rows.y + i), hn::LoadU(d, rows.gy + i));
    hn::StoreU(g, d, rows.g + i);
    sum = hn::Add(sum, g);
  }
};

template <class T>
void masked_sum_rows(const MaskedSumRows<T>& p) {
  const MaskedSumBody<T> body{{p}};
  over_slabs<T, kSlabVectors>(p.channels, SumSlab<4, MaskedSumBody<T>>{body, p.rows, p.channels});
}

template <class T, bool kProduct>
struct ReduceBody : OneSum<ReduceRows<T>> {
  template <class D, class V>
  HWY_INLINE HWY_ATTR void add(D d, std::int64_t i, None /*k*/, V& sum) const {
    const ReduceRows<T>& rows = this->p;
    const auto a = hn::LoadU(d, rows.a + i);
    if constexpr (kProduct) {
      sum = hn::MulAdd(a, hn::LoadU(d, rows.b + i), sum);
    } else {
      sum = hn::Add(sum, a);
    }
  }
};

template <class T, bool kProduct>
void reduce_rows(const ReduceRows<T>& p) {
  const ReduceBody<T, kProduct> body{{p}};
  over_slabs<T, kSlabVectors>(p.channels, SumSlab<4, ReduceBody<T, kProduct>>{body, p.rows, p.channels});
}
template <class T>
void reduce_rows(const ReduceRows<T>& p) {
  p.b == nullptr ? reduce_rows<T, false>(p) : reduce_rows<T, true>(p);
}

void AffineF32(const AffineRows<float>& p) {
  over_element_slabs<float>(p.rows, p.channels, AffineBody<float>{p});
}
void AffineF64(const AffineRows<double>& p) {
  over_element_slabs<double>(p.rows, p.channels, AffineBody<double>{p});
}
void ReduceF32(const ReduceRows<float>& p) {
  reduce_rows(p);
}
void ReduceF64(const ReduceRows<double>& p) {
  reduce_rows(p);
}
void DeviationF32(const DeviationRows<float>& p) {
  deviation_rows(p);
}
void DeviationF64(const DeviationRows<double>& p) {
  deviation_rows(p);
}
void MaskedSumF32(const MaskedSumRows<float>& p) {
  masked_sum_rows(p);
}
void MaskedSumF64(const MaskedSumRows<double>& p) {
  masked_sum_rows(p);
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
HWY_EXPORT(DeviationF32);
HWY_EXPORT(DeviationF64);
HWY_EXPORT(MaskedSumF32);
HWY_EXPORT(MaskedSumF64);

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

void run(const DeviationRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(DeviationF32)(p);
}
void run(const DeviationRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(DeviationF64)(p);
}
void run(const MaskedSumRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(MaskedSumF32)(p);
}
void run(const MaskedSumRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(MaskedSumF64)(p);
}

/// Rows [begin, end) of x · s?, then the epilogue, written to `y`.
template <class T>
void affine_rows(const Tensor& x, const Tensor& s, const ConvEpilogue& e, const Tensor& y, std::int64_t begin,
                 std::int64_t end) {
  const std::int64_t channels = x.dim(-1), at = begin * channels;
  run(AffineRows<T>{.x = x.data<T>() + at,
                    .s = optional_data<T>(s),
                    .t = optional_data<T>(e.bias),
                    .residual = e.residual.defined() ? e.residual.data<T>() + at : nullptr,
                    .mask = e.mask.defined() ? e.mask.data<T>() + at : nullptr,
                    .y = y.data<T>() + at,
                    .rows = end - begin,
                    .channels = channels,
                    .relu = e.relu});
}

Tensor affine(const Tensor& x, const Tensor& s, const ConvEpilogue& e, const Tensor& y, std::string_view op) {
  const Rows rows(x, op);
  if (e.bias.defined()) check_channels(e.bias, rows, x, op);
  if (e.residual.defined()) check_same(x, e.residual, op);
  if (e.mask.defined()) check_same(x, e.mask, op);
  dispatch_floating(x.dtype(), op, [&]<class T>() {
    parallel_for(rows.rows, rows.grain,
                 [&](std::int64_t begin, std::int64_t end) { affine_rows<T>(x, s, e, y, begin, end); });
  });
  return y;
}

Tensor reduce(const Tensor& a, const Tensor& b, std::string_view op) {
  const Rows rows(a, op);
  return dispatch_floating(a.dtype(), op, [&]<class T>() {
    const Tensor partial = Tensor::empty({rows.chunks(), rows.channels}, a.dtype());
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      run(ReduceRows<T>{.a = a.data<T>() + begin * rows.channels,
                        .b = b.defined() ? b.data<T>() + begin * rows.channels : nullptr,
                        .sums = partial.data<T>() + begin / rows.grain * rows.channels,
                        .rows = end - begin,
                        .channels = rows.channels});
    });
    return to_tensor<T>(combine<T>(partial, rows.chunks(), rows.channels));
  });
}

}  // namespace

Tensor channel_affine(const Tensor& x, const Tensor& s, const Tensor& t, const Tensor& residual, bool relu) {
  check_channels(s, Rows(x, "channel_affine"), x, "channel_affine");
  return affine(x, s, {t, residual, relu}, Tensor::empty_like(x), "channel_affine");
}

Tensor channel_shift(const Tensor& x, const Tensor& t) {
  check_channels(t, Rows(x, "channel_shift"), x, "channel_shift");
  return affine(x, {}, {.bias = t}, Tensor::empty_like(x), "channel_shift");
}

void apply_epilogue(const Tensor& y, const ConvEpilogue& epilogue) {
  affine(y, {}, epilogue, y, "apply_epilogue");
}

void apply_epilogue(const Tensor& y, const ConvEpilogue& epilogue, std::int64_t first, std::int64_t pixels) {
  dispatch_floating(y.dtype(), "apply_epilogue",
                    [&]<class T>() { affine_rows<T>(y, {}, epilogue, y, first, first + pixels); });
}

Tensor shift_tangent(const Tensor& dx, const Tensor& dt, const Tensor& dr, const Tensor& y, bool in_place) {
  return affine(dx, {}, {.bias = dt, .residual = dr, .mask = y}, in_place ? dx : Tensor::empty_like(dx),
                "shift_tangent");
}

ShiftGradient shift_backward(const Tensor& gy, const Tensor& y, bool in_place) {
  check_same(gy, y, "shift_backward");
  const Rows rows(gy, "shift_backward");
  return dispatch_floating(gy.dtype(), "shift_backward", [&]<class T>() {
    const Tensor g = in_place ? gy : Tensor::empty_like(gy);
    const Tensor partial = Tensor::empty({rows.chunks(), rows.channels}, gy.dtype());
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * rows.channels;
      run(MaskedSumRows<T>{.gy = gy.data<T>() + at,
                           .y = y.data<T>() + at,
                           .g = g.data<T>() + at,
                           .sums = partial.data<T>() + begin / rows.grain * rows.channels,
                           .rows = end - begin,
                           .channels = rows.channels});
    });
    return ShiftGradient{g, to_tensor<T>(combine<T>(partial, rows.chunks(), rows.channels))};
  });
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
    const auto per_chunk = [&] { return Tensor::empty({rows.chunks(), n}, x.dtype()); };
    const Tensor means = per_chunk(), deviations = per_chunk(), squares = per_chunk();
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const T* from = x.data<T>() + begin * n;
      const std::int64_t chunk = begin / rows.grain * n, count = end - begin;
      T* mean = means.data<T>() + chunk;
      run(ReduceRows<T>{from, nullptr, mean, count, n});
      for (std::int64_t c = 0; c < n; ++c) mean[c] /= static_cast<T>(count);
      run(DeviationRows<T>{from, mean, deviations.data<T>() + chunk, squares.data<T>() + chunk, count, n});
    });
    std::vector<double> mean(static_cast<std::size_t>(n)), square(static_cast<std::size_t>(n));
    double count = 0;
    for (std::int64_t k = 0; k < rows.chunks(); ++k) {
      const auto chunk = static_cast<double>(std::min(rows.grain, rows.rows - k * rows.grain));
      const double total = count + chunk;
      for (std::int64_t c = 0; c < n; ++c) {
        const auto i = static_cast<std::size_t>(c);
        // How far the chunk's mean, a sum in T, is off shows in what the deviations from it add up to.
        const double deviation = deviations.data<T>()[k * n + c];
        const double delta = means.data<T>()[k * n + c] + deviation / chunk - mean[i];
        mean[i] += delta * chunk / total;
        square[i] += squares.data<T>()[k * n + c] - deviation * deviation / chunk +
                     delta * delta * count * chunk / total;
      }
      count = total;
    }
    for (double& v : square) {
      if (v < 0) v = 0;  // by rounding, where nothing varies
      v /= count;
    }
    return ChannelMoments{to_tensor<T>(mean), to_tensor<T>(square)};
  });
}

}  // namespace goshawk::kernels
#endif
