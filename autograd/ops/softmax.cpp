// Softmax and cross-entropy. On a trained network p_y ≈ 1, so p − y, the loss and the Hessian diag(p) − p pᵀ
// are formed from the small probabilities, never as differences of numbers near 1. Only log_softmax, whose
// gradient is not known to be a label's, has such a difference: g − p Σg.
#include <algorithm>
#include <cmath>

#include "autograd/ops.hpp"

namespace goshawk {
namespace {

const Op& kSoftmax = register_op("softmax");
const Op& kLogSoftmax = register_op("log_softmax");
const Op& kSoftmaxCrossEntropy = register_op("softmax_cross_entropy");
const Op& kSoftmaxResidual = register_op("softmax_residual");

void check_logits(const Tensor& logits, const char* op) {
  check(logits.ndim() == 2 && logits.dim(1) > 0, "[{}] logits must be [N,C] with C > 0, not {}", op,
        logits.shape());
}

void check_labels(const Tensor& logits, const Tensor& labels, const char* op) {
  check_logits(logits, op);
  check(labels.dtype() == DType::i64 && labels.ndim() == 1 && labels.dim(0) == logits.dim(0),
        "[{}] labels must be i64 [{}] to match logits {}, not {} {}", op, logits.dim(0), logits.shape(),
        labels.dtype(), labels.shape());
  for (std::int64_t i = 0; i < labels.numel(); ++i) {
    const std::int64_t label = labels.data<std::int64_t>()[i];
    check(label >= 0 && label < logits.dim(1), "[{}] label {} of sample {} is outside 0 … {}", op, label, i,
          logits.dim(1) - 1);
  }
}

// out[n] = f(row n of x, its length, row n of out) for row-wise functions.
template <class F>
Tensor rowwise(const Tensor& x, const char* op, F f) {
  Tensor out = Tensor::empty_like(x);
  dispatch_floating(x.dtype(), op, [&]<class T>() {
    const std::int64_t c = x.dim(1);
    for (std::int64_t n = 0; n < x.dim(0); ++n) f(n, x.data<T>() + n * c, c, out.data<T>() + n * c);
  });
  return out;
}

template <class T>
void softmax_row(const T* z, std::int64_t c, T* p) {
  const T top = *std::max_element(z, z + c);
  T total = 0;
  for (std::int64_t i = 0; i < c; ++i) total += p[i] = std::exp(z[i] - top);
  for (std::int64_t i = 0; i < c; ++i) p[i] /= total;
}

// Sum over the last dimension of [N,C], as [N,1].
Variable row_sum(const Variable& x) {
  return sum_to(x, {x.dim(0), 1});
}

// Flat indices of logits[n, label[n]], as [N,1].
Tensor label_index(const Tensor& labels, std::int64_t classes) {
  Tensor index = Tensor::empty({labels.dim(0), 1}, DType::i64);
  for (std::int64_t n = 0; n < labels.dim(0); ++n) {
    index.data<std::int64_t>()[n] = n * classes + labels.data<std::int64_t>()[n];
  }
  return index;
}

// The column of each row's largest element, i64 [N].
Tensor most_probable(const Tensor& p) {
  Tensor top = Tensor::empty({p.dim(0)}, DType::i64);
  dispatch_floating(p.dtype(), "softmax", [&]<class T>() {
    for (std::int64_t n = 0; n < p.dim(0); ++n) {
      const T* row = p.data<T>() + n * p.dim(1);
      top.data<std::int64_t>()[n] = std::max_element(row, row + p.dim(1)) - row;
    }
  });
  return top;
}

// (diag(p) − p pᵀ) g for rows p of probabilities. It does not change when g moves by a constant: with g = 0
// where p is largest, no two large numbers are subtracted.
Variable covariance_product(const Variable& p, const Variable& g) {
  const Variable relative = sub(g, gather(g, label_index(most_probable(p.value()), p.dim(1))));
  return mul(p, sub(relative, row_sum(mul(relative, p))));
}

}  // namespace

Variable softmax(const Variable& logits) {
  check_logits(logits.value(), "softmax");
  const Tensor p =
      rowwise(logits.value(), "softmax",
              [](std::int64_t, const auto* z, std::int64_t c, auto* out) { softmax_row(z, c, out); });
  return record(
      kSoftmax, {logits}, p,
      [p](const Backward& d) { return std::vector{covariance_product(d.output(p), d.grad())}; }, symmetric);
}

Variable log_softmax(const Variable& logits) {
  check_logits(logits.value(), "log_softmax");
  const Tensor y =
      rowwise(logits.value(), "log_softmax", [](std::int64_t, const auto* z, std::int64_t c, auto* out) {
        using T = std::remove_pointer_t<decltype(out)>;
        const std::int64_t top = std::max_element(z, z + c) - z;
        T rest = 0;
        for (std::int64_t i = 0; i < c; ++i) {
          if (i != top) rest += std::exp(z[i] - z[top]);
        }
        const T log_total = std::log1p(rest);
        for (std::int64_t i = 0; i < c; ++i) out[i] = z[i] - z[top] - log_total;
      });
  return record(
      kLogSoftmax, {logits}, y,
      [logits](const Backward& d) {
        return std::vector{sub(d.grad(), mul(softmax(logits), row_sum(d.grad())))};
      },
      [logits](const Forward& d) {
        return std::vector{sub(d.tangent(), row_sum(mul(softmax(logits), d.tangent())))};
      });
}

Variable softmax_residual(const Variable& logits, const Tensor& labels) {
  check_labels(logits.value(), labels, "softmax_residual");
  const Tensor r = rowwise(logits.value(), "softmax_residual",
                           [&](std::int64_t n, const auto* z, std::int64_t c, auto* out) {
                             using T = std::remove_pointer_t<decltype(out)>;
                             const std::int64_t label = labels.data<std::int64_t>()[n];
                             softmax_row(z, c, out);
                             // p_y − 1 = −Σ_{i≠y} p_i
                             T others = 0;
                             for (std::int64_t i = 0; i < c; ++i) others += i == label ? T{0} : out[i];
                             out[label] = -others;
                           });
  return record(
      kSoftmaxResidual, {logits}, r,
      [logits](const Backward& d) {
        const Variable p = softmax(logits);
        return std::vector{covariance_product(p, d.grad())};
      },
      symmetric);
}

Variable softmax_cross_entropy(const Variable& logits, const Tensor& labels, Reduction reduction) {
  check_labels(logits.value(), labels, "softmax_cross_entropy");
  const std::int64_t n = logits.dim(0), c = logits.dim(1);
  Tensor losses = Tensor::empty({n}, logits.dtype());
  dispatch_floating(logits.dtype(), "softmax_cross_entropy", [&]<class T>() {
    for (std::int64_t i = 0; i < n; ++i) {
      const T* z = logits.value().data<T>() + i * c;
      const std::int64_t label = labels.data<std::int64_t>()[i];
      const std::int64_t top = std::max_element(z, z + c) - z;
      T rest = 0;
      for (std::int64_t k = 0; k < c; ++k) {
        if (k != top) rest += std::exp(z[k] - z[top]);
      }
      losses.data<T>()[i] = (z[top] - z[label]) + std::log1p(rest);
    }
  });
  const Variable per_sample = record(
      kSoftmaxCrossEntropy, {logits}, std::move(losses),
      [logits, labels](const Backward& d) {
        return std::vector{mul(softmax_residual(logits, labels), reshape(d.grad(), {d.grad().dim(0), 1}))};
      },
      [logits, labels](const Forward& d) {
        return std::vector{reshape(row_sum(mul(softmax_residual(logits, labels), d.tangent())), {-1})};
      });
  switch (reduction) {
    case Reduction::mean:
      return mean(per_sample);
    case Reduction::sum:
      return sum(per_sample);
    case Reduction::none:
      break;
  }
  return per_sample;
}

}  // namespace goshawk
