#include "autograd/curvature/softmax_output.hpp"

#include <algorithm>
#include <cmath>

#include "core/random.hpp"

namespace goshawk {
namespace {

using Index = std::int64_t;

std::size_t at(Index i) {
  return static_cast<std::size_t>(i);
}

/// The classes with `top` moved to the end.
Index ordered_class(Index position, Index top, Index classes) {
  if (position == classes - 1) return top;
  return position < top ? position : position + 1;
}

/// Writes seed / largest element to row n of `to` and returns the square of that element.
template <class T>
double write_scaled(const std::vector<double>& seed, Index n, const Tensor& to) {
  double largest = 0;
  for (double v : seed) largest = std::max(largest, std::abs(v));
  T* const row = to.data<T>() + n * to.dim(1);
  for (std::size_t c = 0; c < seed.size(); ++c) {
    row[c] = largest > 0 ? static_cast<T>(seed[c] / largest) : T{0};
  }
  return largest * largest;
}

}  // namespace

SoftmaxOutput::SoftmaxOutput(const Tensor& logits) {
  check(logits.ndim() == 2 && logits.dim(1) >= 2 && is_floating(logits.dtype()),
        "[SoftmaxOutput] logits must be f32 or f64 [N, C] with at least 2 classes, not {} {}", logits.dtype(),
        logits.shape());
  const Tensor z = logits.to(DType::f64);
  p_ = Tensor::empty(logits.shape(), DType::f64);
  log_p_ = Tensor::empty(logits.shape(), DType::f64);
  const Index c = classes();
  for (Index n = 0; n < samples(); ++n) {
    const double* const row = z.data<double>() + n * c;
    check(std::all_of(row, row + c, [](double v) { return std::isfinite(v); }),
          "[SoftmaxOutput] sample {} has a logit that is not finite; check the weights and the pictures", n);
    const Index top = std::max_element(row, row + c) - row;
    double* const p = p_.data<double>() + n * c;
    double rest = 0;
    for (Index i = 0; i < c; ++i) {
      p[i] = std::exp(row[i] - row[top]);
      if (i != top) rest += p[i];
    }
    const double log_total = std::log1p(rest);
    for (Index i = 0; i < c; ++i) {
      p[i] /= 1 + rest;
      log_p_.data<double>()[n * c + i] = row[i] - row[top] - log_total;
    }
    top_.push_back(top);
  }
}

OutputDirections SoftmaxOutput::factor(Index begin, Index end, DType dtype) const {
  const Index c = classes();
  check(begin >= 0 && begin <= end && end <= c - 1,
        "[SoftmaxOutput::factor] there are directions 0 … {} but {} … {} were asked for", c - 2, begin,
        end - 1);
  OutputDirections directions;
  for (Index d = begin; d < end; ++d) directions.seeds.push_back(Tensor::zeros(p_.shape(), dtype));
  directions.weights = Tensor::empty({end - begin, samples()}, DType::f64);
  dispatch_floating(dtype, "SoftmaxOutput::factor", [&]<class T>() {
    std::vector<double> tail(at(c) + 1);  // tail[i] = Σ_{j≥i} p_j in the new order
    for (Index n = 0; n < samples(); ++n) {
      const double* const p = p_.data<double>() + n * c;
      tail[at(c)] = 0;
      for (Index i = c - 1; i >= 0; --i) tail[at(i)] = tail[at(i) + 1] + p[ordered_class(i, top(n), c)];
      for (Index d = begin; d < end; ++d) {
        T* const seed = directions.seeds[at(d - begin)].data<T>() + n * c;
        const double rest = tail[at(d) + 1];
        const Index own = ordered_class(d, top(n), c);
        for (Index j = d + 1; j < c; ++j) {
          const Index other = ordered_class(j, top(n), c);
          seed[other] = static_cast<T>(-p[other] / rest);
        }
        seed[own] = T{1};
        directions.weights.data<double>()[(d - begin) * samples() + n] = p[own] * rest / tail[at(d)];
      }
    }
  });
  return directions;
}

OutputDirections SoftmaxOutput::probes(OutputProbe probe, int count, std::uint64_t seed,
                                       std::uint64_t first_stream, DType dtype) const {
  check(count >= 1, "[SoftmaxOutput::probes] {} probes were asked for; give 1 or more", count);
  const Index c = classes();
  OutputDirections directions;
  for (int k = 0; k < count; ++k) directions.seeds.push_back(Tensor::empty(p_.shape(), dtype));
  directions.weights = Tensor::empty({count, samples()}, DType::f64);
  dispatch_floating(dtype, "SoftmaxOutput::probes", [&]<class T>() {
    std::vector<double> tail(at(c) + 1), row(at(c));
    for (Index n = 0; n < samples(); ++n) {
      Random random(seed, first_stream + static_cast<std::uint64_t>(n));
      const double* const p = p_.data<double>() + n * c;
      tail[at(c)] = 0;
      for (Index i = c - 1; i >= 0; --i) tail[at(i)] = tail[at(i) + 1] + p[ordered_class(i, top(n), c)];
      for (int k = 0; k < count; ++k) {
        if (probe == OutputProbe::rademacher) {
          // Row j of L z: √D_j z_j − p_j Σ_{d<j} √D_d z_d / r_d.
          double before = 0;
          for (Index j = 0; j < c; ++j) {
            const Index own = ordered_class(j, top(n), c);
            double own_part = 0, next = 0;
            if (j < c - 1) {
              const double rest = tail[at(j) + 1];
              const double z = (random.next_u32() >> 31) != 0 ? 1.0 : -1.0;
              own_part = z * std::sqrt(p[own] * rest / tail[at(j)]);
              next = own_part / rest;
            }
            row[at(own)] = own_part - p[own] * before;
            before += next;
          }
        } else {
          // Walks over the classes from the most probable one, so that the sum that is compared with is exact
          // where most draws fall.
          double u = random.uniform() * tail[0];
          Index drawn = top(n);
          u -= p[drawn];
          for (Index i = 0; i < c - 1 && u >= 0; ++i) {
            const Index candidate = ordered_class(i, top(n), c);
            if (p[candidate] == 0) continue;
            drawn = candidate;
            u -= p[candidate];
          }
          double others = 0;
          for (Index i = 0; i < c; ++i) {
            row[at(i)] = -p[i];
            if (i != drawn) others += p[i];
          }
          row[at(drawn)] = others;
        }
        directions.weights.data<double>()[k * samples() + n] =
            write_scaled<T>(row, n, directions.seeds[at(k)]);
      }
    }
  });
  return directions;
}

Tensor SoftmaxOutput::product(const Tensor& u) const {
  check(u.shape() == p_.shape(), "[SoftmaxOutput::product] the logits are {} but u is {}", p_.shape(),
        u.shape());
  const Index c = classes();
  Tensor out = Tensor::empty_like(u);
  dispatch_floating(u.dtype(), "SoftmaxOutput::product", [&]<class T>() {
    for (Index n = 0; n < samples(); ++n) {
      const double* const p = p_.data<double>() + n * c;
      const T* const from = u.data<T>() + n * c;
      // Relative to the most probable class, whose own part of the mean would cancel.
      const double reference = from[top(n)];
      double mean = 0;
      for (Index i = 0; i < c; ++i) mean += p[i] * (from[i] - reference);
      for (Index i = 0; i < c; ++i) {
        out.data<T>()[n * c + i] = static_cast<T>(p[i] * (from[i] - reference - mean));
      }
    }
  });
  return out;
}

Tensor SoftmaxOutput::forms(const Tensor& u) const {
  check(u.shape() == p_.shape(), "[SoftmaxOutput::forms] the logits are {} but u is {}", p_.shape(),
        u.shape());
  const Index c = classes();
  Tensor out = Tensor::empty({samples()}, DType::f64);
  dispatch_floating(u.dtype(), "SoftmaxOutput::forms", [&]<class T>() {
    for (Index n = 0; n < samples(); ++n) {
      const double* const p = p_.data<double>() + n * c;
      const T* const from = u.data<T>() + n * c;
      const double reference = from[top(n)];
      double mean = 0, sum = 0;
      for (Index i = 0; i < c; ++i) mean += p[i] * (from[i] - reference);
      for (Index i = 0; i < c; ++i) {
        const double difference = from[i] - reference - mean;
        sum += p[i] * difference * difference;
      }
      out.data<double>()[n] = sum;
    }
  });
  return out;
}

void SoftmaxOutput::check_labels(const Tensor& labels) const {
  check(labels.defined(), "[SoftmaxOutput] there are no labels; give i64 [{}], one for each sample",
        samples());
  check(labels.dtype() == DType::i64 && labels.shape() == Shape{samples()},
        "[SoftmaxOutput] labels must be i64 [{}], not {} {}", samples(), labels.dtype(), labels.shape());
  for (Index n = 0; n < samples(); ++n) {
    const Index label = labels.data<Index>()[n];
    check(label >= 0 && label < classes(), "[SoftmaxOutput] label {} of sample {} is outside 0 … {}", label,
          n, classes() - 1);
  }
}

Tensor SoftmaxOutput::residual(const Tensor& labels) const {
  check_labels(labels);
  const Index c = classes();
  Tensor out = p_.clone();
  for (Index n = 0; n < samples(); ++n) {
    const Index label = labels.data<Index>()[n];
    double others = 0;
    for (Index i = 0; i < c; ++i) others += i == label ? 0.0 : p_.data<double>()[n * c + i];
    out.data<double>()[n * c + label] = -others;
  }
  return out;
}

double SoftmaxOutput::loss_sum(const Tensor& labels) const {
  check_labels(labels);
  double sum = 0;
  for (Index n = 0; n < samples(); ++n) sum -= log_p_.data<double>()[n * classes() + labels.data<Index>()[n]];
  return sum;
}

}  // namespace goshawk
