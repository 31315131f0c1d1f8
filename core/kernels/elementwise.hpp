// Elementwise loops over tensors, parallel in fixed chunks.
#pragma once

#include <string_view>

#include "core/parallel.hpp"
#include "core/tensor.hpp"

namespace goshawk::kernels {

/// out[i] = f(x[i]) for an f32 or f64 tensor; f is called with float or double.
template <class F>
Tensor map(const Tensor& x, std::string_view op, F f) {
  Tensor out = Tensor::empty_like(x);
  dispatch_floating(x.dtype(), op, [&]<class T>() {
    const T* __restrict from = x.data<T>();
    T* __restrict to = out.data<T>();
    parallel_for(x.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) to[i] = f(from[i]);
    });
  });
  return out;
}

/// out[i] = f(a[i], b[i]); a and b have the same shape and dtype.
template <class F>
Tensor zip(const Tensor& a, const Tensor& b, std::string_view op, F f) {
  check_same(a, b, op);
  Tensor out = Tensor::empty_like(a);
  dispatch_floating(a.dtype(), op, [&]<class T>() {
    const T* __restrict left = a.data<T>();
    const T* __restrict right = b.data<T>();
    T* __restrict to = out.data<T>();
    parallel_for(a.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) to[i] = f(left[i], right[i]);
    });
  });
  return out;
}

/// sum[i] += term[i], in place.
inline void add_to(const Tensor& sum, const Tensor& term) {
  check_same(sum, term, "add");
  dispatch_floating(sum.dtype(), "add", [&]<class T>() {
    const T* __restrict from = term.data<T>();
    T* __restrict to = sum.data<T>();
    parallel_for(sum.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) to[i] += from[i];
    });
  });
}

}  // namespace goshawk::kernels
