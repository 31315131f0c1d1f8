// The first derivative of normalisations: sums down the channels, and the gradient that they make.
#include "core/kernels/norm.hpp"
#include "core/kernels/norm_passes.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/norm_first.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef GOSHAWK_CORE_KERNELS_NORM_FIRST_ARGS
#define GOSHAWK_CORE_KERNELS_NORM_FIRST_ARGS
namespace goshawk::kernels {

// Runs of rows of [rows, channels] operands; pointers that may be null say so.

/// g = gy, but 0 where y ≤ 0; gx = s · g, masked = g, and sums of g and g (x − mean).
template <class T>
struct BackwardRows {
  const T *gy, *y, *x;      // y null: no mask
  const T *ms, *mt;         // [channels]; not null: x · ms + mt stands for y, and y is not read
  const T *mean, *s;        // [channels]; mean null: 0
  T *gx, *masked;           // null: not wanted
  bool add_gx, add_masked;  // to what they hold
  T *sum_g, *sum_gx;        // [channels]
  std::int64_t rows, channels;
};

/// gx = a · g + b · x + c per channel.
template <class T>
struct CombineRows {
  const T *gy, *y, *x, *a, *b, *c;  // y null: no mask
  const T *ms, *mt;                 // as in BackwardRows
  T* gx;
  bool add;  // to what gx holds
  std::int64_t rows, channels;
};

}  // namespace goshawk::kernels
#endif

#include "core/kernels/norm_rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {

template <class T, Mask kMask>
struct BackwardBody {
  const BackwardRows<T>& p;
  template <class D>
  struct Coefficients {
    hn::Vec<D> mean, s, ms, mt;
  };
  template <class D>
  struct Sums {
    hn::Vec<D> g, gx;
  };
  template <class D>
  HWY_INLINE HWY_ATTR Coefficients<D> load(D d, std::int64_t c) const {
    const auto at = [&](const T* v) HWY_ATTR { return per_channel(d, v, c); };
    return {at(p.mean), at(p.s), at(p.ms), at(p.mt)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR Sums<D> zero(D d) const {
    return {hn::Zero(d), hn::Zero(d)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR void add(D d, std::int64_t i, const Coefficients<D>& k, Sums<D>& sums) const {
    const auto x = hn::LoadU(d, p.x + i);
    const auto y = relu_output<kMask>(d, p.y, i, x, k.ms, k.mt);
    const auto g = passed<kMask>(y, hn::LoadU(d, p.gy + i));
    if (p.masked != nullptr) store_or_add<D>(g, p.masked + i, p.add_masked);
    if (p.gx != nullptr) store_or_add<D>(hn::Mul(k.s, g), p.gx + i, p.add_gx);
    sums.g = hn::Add(sums.g, g);
    sums.gx = hn::MulAdd(g, hn::Sub(x, k.mean), sums.gx);
  }
  template <class D>
  HWY_INLINE HWY_ATTR void store(D d, std::int64_t c, const Sums<D>& even, const Sums<D>& odd) const {
    hn::StoreU(hn::Add(even.g, odd.g), d, p.sum_g + c);
    hn::StoreU(hn::Add(even.gx, odd.gx), d, p.sum_gx + c);
  }
};

template <class T, Mask kMask>
struct CombineBody {
  const CombineRows<T>& p;
  template <class D>
  struct Coefficients {
    hn::Vec<D> a, b, c, ms, mt;
  };
  template <class D>
  HWY_INLINE HWY_ATTR Coefficients<D> load(D d, std::int64_t c) const {
    const auto at = [&](const T* v) HWY_ATTR { return per_channel(d, v, c); };
    return {at(p.a), at(p.b), at(p.c), at(p.ms), at(p.mt)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t i, const Coefficients<D>& k) const {
    const auto x = hn::LoadU(d, p.x + i);
    const auto y = relu_output<kMask>(d, p.y, i, x, k.ms, k.mt);
    const auto g = passed<kMask>(y, hn::LoadU(d, p.gy + i));
    store_or_add<D>(hn::MulAdd(k.a, g, hn::MulAdd(k.b, x, k.c)), p.gx + i, p.add);
  }
};

template <class T>
void backward(const BackwardRows<T>& p) {
  with_mask(p, [&]<Mask kMask>() HWY_ATTR {
    const BackwardBody<T, kMask> body{p};
    over_slabs<T, kSumVectors>(p.channels, SumSlab<2, BackwardBody<T, kMask>>{body, p.rows, p.channels});
  });
}

template <class T>
void combine_rows(const CombineRows<T>& p) {
  with_mask(
      p, [&]<Mask kMask>() HWY_ATTR { over_element_slabs<T>(p.rows, p.channels, CombineBody<T, kMask>{p}); });
}

void BackwardF32(const BackwardRows<float>& p) {
  backward(p);
}
void BackwardF64(const BackwardRows<double>& p) {
  backward(p);
}
void CombineF32(const CombineRows<float>& p) {
  combine_rows(p);
}
void CombineF64(const CombineRows<double>& p) {
  combine_rows(p);
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels {
namespace {

HWY_EXPORT(BackwardF32);
HWY_EXPORT(BackwardF64);
HWY_EXPORT(CombineF32);
HWY_EXPORT(CombineF64);

void run(const BackwardRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(BackwardF32)(p);
}
void run(const BackwardRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(BackwardF64)(p);
}
void run(const CombineRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(CombineF32)(p);
}
void run(const CombineRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(CombineF64)(p);
}

NormTarget target(bool wanted, const Tensor& sum, const Tensor& x, std::string_view op) {
  if (!wanted) return {};
  if (!sum.defined()) return {Tensor::empty_like(x), false};
  check_same(sum, x, op);
  return {sum, true};
}

/// Without a ReLU the residual's gradient is gy itself, and there is nothing to write unless it is to be
/// added.
NormTarget residual_target(const NormWants& wants, const Tensor& y, const Tensor& x, std::string_view op) {
  return target(wants.residual && (y.defined() || wants.residual_sum.defined()), wants.residual_sum, x, op);
}

}  // namespace

void check_operands(const Tensor& gy, const Tensor& x, const Tensor& scale, const Tensor& y,
                    std::string_view op) {
  check_same(gy, x, op);
  if (y.defined()) check_same(y, x, op);
  check_channels(scale, Rows(x, op), x, op);
}

void check_statistics(const Tensor& mean, const Tensor& inv_std, const Rows& rows, const Tensor& x,
                      std::string_view op) {
  check_channels(mean, rows, x, op);
  check_channels(inv_std, rows, x, op);
}

void check_map(const NormMap& map, const Rows& rows, const Tensor& x, std::string_view op) {
  if (!map.s.defined()) return;
  check_channels(map.s, rows, x, op);
  check_channels(map.t, rows, x, op);
}

void check_cotangents(const NormGradients& u, const Rows& rows, const Tensor& x, std::string_view op) {
  for (const Tensor* t : {&u.x, &u.residual}) {
    if (t->defined()) check_same(*t, x, op);
  }
  for (const Tensor* t : {&u.scale, &u.shift}) {
    if (t->defined()) check_channels(*t, rows, x, op);
  }
}

FirstSums first_pass(const Rows& rows, const Tensor& gy, const Tensor& x, const Tensor& y, const Tensor& mean,
                     const Tensor& s, const NormTarget& gx, const NormTarget& masked, const NormMap& map) {
  return dispatch_floating(x.dtype(), "norm", [&]<class T>() {
    const std::int64_t n = rows.channels;
    const Tensor sums_g = Tensor::empty({rows.chunks(), n}, x.dtype());
    const Tensor sums_gx = Tensor::empty({rows.chunks(), n}, x.dtype());
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * n, chunk = begin / rows.grain * n;
      run(BackwardRows<T>{.gy = gy.data<T>() + at,
                          .y = data_at<T>(y, at),
                          .x = x.data<T>() + at,
                          .ms = optional_data<T>(map.s),
                          .mt = optional_data<T>(map.t),
                          .mean = optional_data<T>(mean),
                          .s = optional_data<T>(s),
                          .gx = data_at<T>(gx.tensor, at),
                          .masked = data_at<T>(masked.tensor, at),
                          .add_gx = gx.add,
                          .add_masked = masked.add,
                          .sum_g = sums_g.data<T>() + chunk,
                          .sum_gx = sums_gx.data<T>() + chunk,
                          .rows = end - begin,
                          .channels = n});
    });
    return FirstSums{combine<T>(sums_g, rows.chunks(), n), combine<T>(sums_gx, rows.chunks(), n)};
  });
}

BatchNormSlopes batch_norm_slopes(const FirstSums& sums, const Tensor& gamma, const Tensor& mean,
                                  const Tensor& inv_std, std::int64_t channel, double count) {
  return dispatch_floating(gamma.dtype(), "norm", [&]<class T>() {
    const auto i = static_cast<std::size_t>(channel);
    const double s = value<T>(inv_std, channel);
    const double a = value<T>(gamma, channel) * s;
    const double b = -a * s * s * sums.gx[i] / count;
    return BatchNormSlopes{a, b, -a * sums.g[i] / count - b * value<T>(mean, channel)};
  });
}

NormGradients affine_backward(const Tensor& gy, const Tensor& x, const Tensor& s, const Tensor& y,
                              const NormWants& wants) {
  constexpr std::string_view op = "affine_backward";
  check_operands(gy, x, s, y, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    NormGradients result;
    const NormTarget gx = target(wants.x, wants.x_sum, x, op), masked = residual_target(wants, y, x, op);
    const FirstSums sums = first_pass(Rows(x, op), gy, x, y, {}, s, gx, masked, {});
    result.x = gx.tensor;
    if (wants.residual) result.residual = masked.tensor.defined() ? masked.tensor : gy;
    result.scale = to_tensor<T>(sums.gx);
    result.shift = to_tensor<T>(sums.g);
    return result;
  });
}

NormGradients batch_norm_backward(const Tensor& gy, const Tensor& x, const Tensor& gamma, const Tensor& mean,
                                  const Tensor& inv_std, const Tensor& y, const NormWants& wants,
                                  const NormMap& map) {
  constexpr std::string_view op = "batch_norm_backward";
  check_operands(gy, x, gamma, y, op);
  const Rows rows(x, op);
  check_statistics(mean, inv_std, rows, x, op);
  check_map(map, rows, x, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    const std::int64_t n = rows.channels;
    NormGradients result;
    const NormTarget masked = residual_target(wants, y, x, op);
    FirstSums sums = first_pass(rows, gy, x, y, mean, {}, {}, masked, map);
    if (wants.residual) result.residual = masked.tensor.defined() ? masked.tensor : gy;

    const Tensor a = Tensor::empty({n}, x.dtype()), b = Tensor::empty({n}, x.dtype()),
                 c = Tensor::empty({n}, x.dtype());
    const auto count = static_cast<double>(rows.rows);
    for (std::int64_t k = 0; k < n; ++k) {
      const BatchNormSlopes slopes = batch_norm_slopes(sums, gamma, mean, inv_std, k, count);
      a.data<T>()[k] = static_cast<T>(slopes.a);
      b.data<T>()[k] = static_cast<T>(slopes.b);
      c.data<T>()[k] = static_cast<T>(slopes.c);
      sums.gx[static_cast<std::size_t>(k)] *= value<T>(inv_std, k);
    }
    result.scale = to_tensor<T>(sums.gx);
    result.shift = to_tensor<T>(sums.g);
    if (!wants.x) return result;
    const NormTarget gx = target(true, wants.x_sum, x, op);
    result.x = gx.tensor;
    // The masked gradient, where it was written by itself, saves reading the mask again.
    const bool written = masked.tensor.defined() && !masked.add;
    const Tensor& g = written ? result.residual : gy;
    const Tensor mask = written ? Tensor() : y;
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * n;
      run(CombineRows<T>{.gy = g.data<T>() + at,
                         .y = data_at<T>(mask, at),
                         .x = x.data<T>() + at,
                         .a = a.data<T>(),
                         .b = b.data<T>(),
                         .c = c.data<T>(),
                         .ms = written ? nullptr : optional_data<T>(map.s),
                         .mt = written ? nullptr : optional_data<T>(map.t),
                         .gx = gx.tensor.template data<T>() + at,
                         .add = gx.add,
                         .rows = end - begin,
                         .channels = n});
    });
    return result;
  });
}

}  // namespace goshawk::kernels
#endif
