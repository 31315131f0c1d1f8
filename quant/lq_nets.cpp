#include "quant/lq_nets.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/parallel.hpp"

namespace goshawk {
namespace {

constexpr int kMaxBits = 8;
constexpr int kMaxIterations = 20;
// A fit that gains less than this share of the error is the last one.
constexpr double kLeastGain = 1e-4;
// Weight, relative to the number of elements, of staying at the old basis: it decides where the codes leave a
// direction of the basis open, and cannot make the fit worse than the old basis.
constexpr double kProximal = 1e-9;

using Basis = std::vector<double>;

// The different levels of a basis in ascending order, the code of each, and the thresholds between them, with
// infinities up to 2^b − 1 of these.
template <class T>
struct Levels {
  std::vector<T> values, thresholds;
  std::vector<std::uint8_t> codes;
  std::size_t half_levels;

  Levels(const Basis& basis, int bits) : half_levels(std::size_t{1} << (bits - 1)) {
    std::vector<std::pair<T, std::uint8_t>> sorted;
    for (int code = 0; code < 1 << bits; ++code) {
      double level = 0;
      for (int k = 0; k < bits; ++k) {
        const double v = basis[static_cast<std::size_t>(k)];
        level += (code >> k & 1) != 0 ? v : -v;
      }
      sorted.emplace_back(static_cast<T>(level), static_cast<std::uint8_t>(code));
    }
    std::sort(sorted.begin(), sorted.end());
    for (const auto& [value, code] : sorted) {
      if (!values.empty() && value == values.back()) continue;
      if (!values.empty()) thresholds.push_back(values.back() + (value - values.back()) / 2);
      values.push_back(value);
      codes.push_back(code);
    }
    thresholds.resize(2 * half_levels - 1, std::numeric_limits<T>::infinity());
  }

  // How many thresholds lie below w: a binary search without branches, which weights would mispredict.
  std::size_t nearest(T w) const {
    const T* threshold = thresholds.data();
    std::size_t at = 0;
    for (std::size_t step = half_levels; step > 0; step /= 2)
      at += step * static_cast<std::size_t>(threshold[at + step - 1] < w);
    return at;
  }
};

// ‖Q(w) − w‖², and by code how many elements have it and their sum.
struct Statistics {
  double error = 0;
  std::array<double, 1 << kMaxBits> count{}, sum{};
};

// One quantization group: the elements first, first + stride, … of an array of n.
template <class T>
struct Group {
  const T* w;
  std::int64_t first, stride, n;

  // Over fixed chunks added in order.
  Statistics statistics(const Basis& basis, int bits) const {
    const Levels<T> levels(basis, bits);
    const std::int64_t elements = (n - first + stride - 1) / stride;
    const std::int64_t chunks = (elements + kElementwiseGrain - 1) / kElementwiseGrain;
    std::vector<Statistics> partial(static_cast<std::size_t>(chunks));
    parallel_for(elements, kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
      Statistics& s = partial[static_cast<std::size_t>(begin / kElementwiseGrain)];
      for (std::int64_t i = begin; i < end; ++i) {
        const T element = w[first + i * stride];
        const std::size_t at = levels.nearest(element);
        const double x = element, e = x - levels.values[at];
        s.error += e * e;
        s.count[levels.codes[at]] += 1;
        s.sum[levels.codes[at]] += x;
      }
    });
    Statistics total = partial[0];
    for (std::size_t c = 1; c < partial.size(); ++c) {
      total.error += partial[c].error;
      for (std::size_t code = 0; code < std::size_t{1} << bits; ++code) {
        total.count[code] += partial[c].count[code];
        total.sum[code] += partial[c].sum[code];
      }
    }
    return total;
  }
};

// argmin_v ‖w − B v‖² + δ‖v − old‖² by Cholesky's method, as |v| in ascending order: the signs and the order
// of a basis change no level. Rounded to T, since that is how it is kept.
template <class T>
Basis fit(const Statistics& s, const Basis& old, int bits) {
  const auto b = static_cast<std::size_t>(bits);
  std::array<std::array<double, kMaxBits>, kMaxBits> a{};
  Basis v(b);
  double elements = 0;
  for (std::size_t code = 0; code < std::size_t{1} << b; ++code) {
    elements += s.count[code];
    for (std::size_t i = 0; i < b; ++i) {
      const double sign_i = (code >> i & 1) != 0 ? 1 : -1;
      v[i] += sign_i * s.sum[code];
      for (std::size_t j = 0; j <= i; ++j)
        a[i][j] += sign_i * ((code >> j & 1) != 0 ? 1 : -1) * s.count[code];
    }
  }
  const double delta = kProximal * elements;
  for (std::size_t i = 0; i < b; ++i) {
    a[i][i] += delta;
    v[i] += delta * old[i];
  }
  for (std::size_t i = 0; i < b; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = a[i][j];
      for (std::size_t k = 0; k < j; ++k) sum -= a[i][k] * a[j][k];
      // The matrix is δI plus a positive semi-definite one; rounding may still eat δ.
      a[i][j] = i == j ? std::sqrt(std::max(sum, delta)) : sum / a[j][j];
    }
  }
  for (std::size_t i = 0; i < b; ++i) {
    for (std::size_t k = 0; k < i; ++k) v[i] -= a[i][k] * v[k];
    v[i] /= a[i][i];
  }
  for (std::size_t i = b; i-- > 0;) {
    for (std::size_t k = i + 1; k < b; ++k) v[i] -= a[k][i] * v[k];
    v[i] /= a[i][i];
  }
  for (std::size_t i = 0; i < b; ++i) v[i] = std::abs(static_cast<double>(static_cast<T>(v[i])));
  std::sort(v.begin(), v.end());
  return v;
}

void check_basis(const Tensor& w, const Tensor& basis) {
  check(basis.defined() && basis.ndim() == 2 && basis.dtype() == w.dtype() && w.ndim() >= 1 &&
            (basis.dim(0) == 1 || basis.dim(0) == w.dim(-1)) && basis.dim(1) >= 1 && basis.dim(1) <= kMaxBits,
        "[lq_nets] the basis does not fit weights of {} {}; make one with choose_basis", w.dtype(),
        w.shape());
}

template <class T>
Basis read_row(const Tensor& basis, std::int64_t row) {
  const std::int64_t bits = basis.dim(1);
  Basis v(static_cast<std::size_t>(bits));
  for (std::int64_t k = 0; k < bits; ++k)
    v[static_cast<std::size_t>(k)] = static_cast<double>(basis.data<T>()[row * bits + k]);
  return v;
}

// For every row the best of what QEM makes of the starts, each step kept only if the error falls.
Tensor minimise(const Tensor& w, const std::vector<Tensor>& starts, int iterations) {
  for (const Tensor& start : starts) check_basis(w, start);
  Tensor out = Tensor::empty_like(starts[0]);
  const std::int64_t groups = out.dim(0);
  const int bits = static_cast<int>(out.dim(1));
  dispatch_floating(w.dtype(), "lq_nets", [&]<class T>() {
    parallel_for(groups, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t g = begin; g < end; ++g) {
        const Group<T> group{w.data<T>(), g, groups, w.numel()};
        double best = std::numeric_limits<double>::infinity();
        for (const Tensor& start : starts) {
          Basis v = read_row<T>(start, g);
          auto s = group.statistics(v, bits);
          for (int k = 0; k < iterations; ++k) {
            const Basis candidate = fit<T>(s, v, bits);
            auto next = group.statistics(candidate, bits);
            if (!(next.error < s.error)) break;
            const bool last = s.error - next.error < kLeastGain * s.error;
            v = candidate;
            s = next;
            if (last) break;
          }
          if (!(s.error < best)) continue;
          best = s.error;
          for (int k = 0; k < bits; ++k)
            out.data<T>()[g * bits + k] = static_cast<T>(v[static_cast<std::size_t>(k)]);
        }
      }
    });
  });
  return out;
}

// The basis of even levels Δ·{−h + ½, …, h − ½}: Σ ±Δ·2^(k−1) are the odd multiples of Δ/2.
Tensor even_basis(const Tensor& steps, int bits) {
  Tensor basis = Tensor::empty({steps.numel(), bits}, steps.dtype());
  dispatch_floating(steps.dtype(), "even_basis", [&]<class T>() {
    for (std::int64_t g = 0; g < steps.numel(); ++g) {
      for (int k = 0; k < bits; ++k)
        basis.data<T>()[g * bits + k] = steps.data<T>()[g] * static_cast<T>(std::ldexp(1.0, k - 1));
    }
  });
  return basis;
}

}  // namespace

Tensor choose_basis(const Tensor& w, int bits, Granularity granularity) {
  WeightSpec spec{
      .bits = bits, .scheme = WeightScheme::mid_rise, .granularity = granularity, .clip = ClipRule::mse};
  const Tensor least = choose_grid(w, spec).scale;
  // The range of min_max reaches half a step beyond the outermost level; this one reaches the largest weight
  // with the level itself, (h − ½)Δ.
  spec.clip = ClipRule::min_max;
  const Tensor wide = choose_grid(w, spec).scale;
  const double half_levels = std::ldexp(1.0, bits - 1);
  dispatch_floating(w.dtype(), "choose_basis", [&]<class T>() {
    for (T& step : wide.span<T>()) step *= static_cast<T>(half_levels / (half_levels - 0.5));
  });
  return minimise(w, {even_basis(least, bits), even_basis(wide, bits)}, kMaxIterations);
}

Tensor refit_basis(const Tensor& w, const Tensor& basis) {
  return minimise(w, {basis}, 1);
}

BasisEncoding encode_by_basis(const Tensor& w, const Tensor& basis) {
  check_basis(w, basis);
  BasisEncoding out{Tensor::empty_like(w), Tensor::empty(w.shape(), DType::u8)};
  const std::int64_t groups = basis.dim(0);
  dispatch_floating(w.dtype(), "encode_by_basis", [&]<class T>() {
    std::vector<Levels<T>> levels;
    for (std::int64_t g = 0; g < groups; ++g)
      levels.emplace_back(read_row<T>(basis, g), static_cast<int>(basis.dim(1)));
    const T* from = w.data<T>();
    T* values = out.values.data<T>();
    auto* codes = out.codes.data<std::uint8_t>();
    parallel_for(w.numel(), kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Levels<T>& of_group = levels[static_cast<std::size_t>(i % groups)];
        const std::size_t at = of_group.nearest(from[i]);
        values[i] = of_group.values[at];
        codes[i] = of_group.codes[at];
      }
    });
  });
  return out;
}

}  // namespace goshawk
