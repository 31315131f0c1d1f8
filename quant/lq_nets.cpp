#include "quant/lq_nets.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/kernels/levels.hpp"
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

// What bit k of a code multiplies v_k by.
double factor(std::size_t code, std::size_t k, BasisCodes codes) {
  return (code >> k & 1) != 0 ? 1 : (codes == BasisCodes::signs ? -1 : 0);
}

// The level that a code stands for.
double level_of(const Basis& basis, std::size_t code, BasisCodes codes) {
  double level = 0;
  for (std::size_t k = 0; k < basis.size(); ++k) level += factor(code, k, codes) * basis[k];
  return level;
}

// The different levels of a basis in ascending order, the code of each, and the thresholds between them, with
// infinities up to 2^b − 1 of these.
template <class T>
struct Levels {
  std::vector<T> values, thresholds;
  std::vector<std::uint8_t> codes;
  std::size_t half_levels;

  Levels(const Basis& basis, BasisCodes kind) : half_levels(std::size_t{1} << (basis.size() - 1)) {
    std::vector<std::pair<T, std::uint8_t>> sorted;
    for (std::size_t code = 0; code < 2 * half_levels; ++code) {
      const double level = level_of(basis, code, kind);
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

// The same search where there are many elements for one set of levels: a table says how many thresholds lie
// below each of many equal intervals, and few intervals hold a threshold to compare with.
template <class T>
class TableSearch {
 public:
  explicit TableSearch(const Levels<T>& levels) : thresholds_(levels.thresholds) {
    const std::size_t count = levels.values.size() - 1;
    if (count > 0) {
      first_ = thresholds_.front();
      const T span = thresholds_[count - 1] - first_;
      if (span > 0) per_unit_ = static_cast<T>(kIntervals) / span;
    }
    thresholds_.push_back(std::numeric_limits<T>::infinity());
    for (std::size_t t = 0; t < count; ++t) {
      const auto at = static_cast<std::size_t>(interval(thresholds_[t]));
      if (at + 1 < kIntervals) ++below_[at + 1];
    }
    for (std::size_t i = 1; i < kIntervals; ++i)
      below_[i] = static_cast<std::uint8_t>(below_[i] + below_[i - 1]);
  }

  // Calls f(i, how many thresholds lie below x[i]) for i in [begin, end). interval() never falls with x, so
  // the thresholds of lower intervals lie below it.
  template <class F>
  void for_each(const T* x, std::int64_t begin, std::int64_t end, const F& f) const {
    const T* const thresholds = thresholds_.data();
    std::array<std::int32_t, 512> intervals;
    for (std::int64_t block = begin; block < end; block += std::ssize(intervals)) {
      const std::int64_t n = std::min(end - block, std::ssize(intervals));
      // In vectors, which a loop with look-ups cannot be.
      const T* const from = x + block;
      for (std::int64_t i = 0; i < n; ++i) intervals[static_cast<std::size_t>(i)] = interval(from[i]);
      for (std::int64_t i = 0; i < n; ++i) {
        const T element = from[i];
        std::size_t at = below_[static_cast<std::size_t>(intervals[static_cast<std::size_t>(i)])];
        at +=
            static_cast<std::size_t>(thresholds[at] < element);  // mostly all there is, and without a branch
        // The last threshold is infinite.
        while (thresholds[at] < element) ++at;
        f(block + i, at);
      }
    }
  }

 private:
  static constexpr int kIntervals = 2048;

  std::int32_t interval(T x) const {
    T position = (x - first_) * per_unit_;
    position = position > 0 ? position : T{0};  // a NaN as well
    position = position < T{kIntervals - 1} ? position : T{kIntervals - 1};
    return static_cast<std::int32_t>(position);
  }

  std::vector<T> thresholds_;
  T first_ = 0, per_unit_ = 0;
  std::array<std::uint8_t, kIntervals> below_{};
};

// The level of x, except that a NaN is none of them: what broke stays to be seen.
template <class T>
T or_nan(T level, T x) {
  return std::isnan(x) ? x : level;
}

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
  Statistics statistics(const Basis& basis, BasisCodes kind) const {
    const Levels<T> levels(basis, kind);
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
      for (std::size_t code = 0; code < 2 * levels.half_levels; ++code) {
        total.count[code] += partial[c].count[code];
        total.sum[code] += partial[c].sum[code];
      }
    }
    return total;
  }
};

// argmin_v ‖w − B v‖² + δ‖v − old‖² by Cholesky's method. Rounded to T, since that is how it is kept.
template <class T>
Basis fit(const Statistics& s, const Basis& old, BasisCodes kind) {
  const std::size_t b = old.size();
  std::array<std::array<double, kMaxBits>, kMaxBits> a{};
  Basis v(b);
  double elements = 0;
  for (std::size_t code = 0; code < std::size_t{1} << b; ++code) {
    elements += s.count[code];
    for (std::size_t i = 0; i < b; ++i) {
      const double f = factor(code, i, kind);
      v[i] += f * s.sum[code];
      for (std::size_t j = 0; j <= i; ++j) a[i][j] += f * factor(code, j, kind) * s.count[code];
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
  for (double& element : v) element = static_cast<double>(static_cast<T>(element));
  // The signs and the order of a basis with codes ±1 change no level, so they are made canonical; an average
  // over steps needs the order to stay.
  if (kind == BasisCodes::signs) {
    for (double& element : v) element = std::abs(element);
    std::sort(v.begin(), v.end());
  }
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
Tensor minimise(const Tensor& w, const std::vector<Tensor>& starts, BasisCodes kind, int iterations) {
  for (const Tensor& start : starts) check_basis(w, start);
  Tensor out = starts[0].clone();  // where no start has an error that is a number, as it is for NaN weights
  const std::int64_t groups = out.dim(0);
  const int bits = static_cast<int>(out.dim(1));
  dispatch_floating(w.dtype(), "lq_nets", [&]<class T>() {
    parallel_for(groups, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t g = begin; g < end; ++g) {
        const Group<T> group{w.data<T>(), g, groups, w.numel()};
        double best = std::numeric_limits<double>::infinity();
        for (const Tensor& start : starts) {
          Basis v = read_row<T>(start, g);
          auto s = group.statistics(v, kind);
          for (int k = 0; k < iterations; ++k) {
            const Basis candidate = fit<T>(s, v, kind);
            auto next = group.statistics(candidate, kind);
            // Least squares cannot make it worse, but rounding the basis to T can.
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

// x rounded to many levels. With `statistics`, also how many elements each code has and their sum.
template <class T>
Tensor search_levels(const Tensor& x, const Levels<T>& levels, Statistics* statistics) {
  Tensor out = Tensor::empty_like(x);
  const TableSearch<T> search(levels);
  const T* from = x.data<T>();
  T* to = out.data<T>();
  const T* values = levels.values.data();
  if (statistics == nullptr) {
    parallel_for(x.numel(), kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
      search.for_each(from, begin, end,
                      [=](std::int64_t i, std::size_t at) { to[i] = or_nan(values[at], from[i]); });
    });
    return out;
  }
  // Counts and sums of a chunk by level. Neighbours often share a level (behind a ReLU, zero), and an
  // addition would wait for the one before it, so they add to different copies.
  constexpr std::int64_t kCopies = 4, kGrain = 4 * kElementwiseGrain;
  struct Cell {
    double count = 0, sum = 0;
  };
  const std::size_t cells = levels.values.size();
  const std::int64_t chunks = (x.numel() + kGrain - 1) / kGrain;
  std::vector<Cell> partial(static_cast<std::size_t>(chunks) * cells);
  parallel_for(x.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    // A few cells more than 256: copies a whole page apart would be taken for one another.
    std::array<std::array<Cell, (1 << kMaxBits) + 4>, kCopies> copies;
    for (auto& copy : copies) std::fill_n(copy.begin(), cells, Cell{});
    search.for_each(from, begin, end, [&](std::int64_t i, std::size_t at) {
      to[i] = or_nan(values[at], from[i]);
      Cell& cell = copies[static_cast<std::size_t>(i % kCopies)][at];
      cell.count += 1;
      cell.sum += static_cast<double>(from[i]);
    });
    Cell* const sums = partial.data() + static_cast<std::size_t>(begin / kGrain) * cells;
    for (const auto& copy : copies) {
      for (std::size_t c = 0; c < cells; ++c) {
        sums[c].count += copy[c].count;
        sums[c].sum += copy[c].sum;
      }
    }
  });
  for (std::size_t i = 0; i < partial.size(); ++i) {
    statistics->count[levels.codes[i % cells]] += partial[i].count;
    statistics->sum[levels.codes[i % cells]] += partial[i].sum;
  }
  return out;
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
  return minimise(w, {even_basis(least, bits), even_basis(wide, bits)}, BasisCodes::signs, kMaxIterations);
}

Tensor refit_basis(const Tensor& w, const Tensor& basis, BasisCodes codes) {
  return minimise(w, {basis}, codes, 1);
}

BasisEncoding encode_by_basis(const Tensor& w, const Tensor& basis, BasisCodes kind) {
  check_basis(w, basis);
  BasisEncoding out{Tensor::empty_like(w), Tensor::empty(w.shape(), DType::u8)};
  const std::int64_t groups = basis.dim(0);
  dispatch_floating(w.dtype(), "encode_by_basis", [&]<class T>() {
    std::vector<Levels<T>> levels;
    for (std::int64_t g = 0; g < groups; ++g) levels.emplace_back(read_row<T>(basis, g), kind);
    const T* from = w.data<T>();
    T* values = out.values.data<T>();
    auto* codes = out.codes.data<std::uint8_t>();
    parallel_for(w.numel(), kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Levels<T>& of_group = levels[static_cast<std::size_t>(i % groups)];
        const std::size_t at = of_group.nearest(from[i]);
        values[i] = or_nan(of_group.values[at], from[i]);
        codes[i] = of_group.codes[at];
      }
    });
  });
  return out;
}

Tensor calibrated_basis(const ActivationObserver& observer, int bits, BasisCodes codes, DType dtype) {
  check(bits >= 1 && bits <= kMaxBits, "[calibrated_basis] {} bits are not 1 to {}", bits, kMaxBits);
  const bool is_signed = codes == BasisCodes::signs;
  std::vector<Tensor> starts;
  for (CalibrationRule rule : {CalibrationRule::mse, CalibrationRule::max}) {
    // With either kind of code the even basis Δ·(1, 2, 4, …) has its outermost level at Δ·(2^b − 1).
    const double top = calibrated_clip(observer, bits, is_signed, {.rule = rule});
    Tensor start = Tensor::empty({1, bits}, DType::f64);
    for (int k = 0; k < bits; ++k) start.data<double>()[k] = std::ldexp(top, k) / ((1 << bits) - 1);
    starts.push_back(start);
  }
  const std::vector<double>& sample = observer.sample();
  return minimise(Tensor::from(sample, {static_cast<std::int64_t>(sample.size())}), starts, codes,
                  kMaxIterations)
      .to(dtype);
}

BasisActivation quantize_by_basis(const Tensor& x, const Tensor& basis, BasisCodes codes, bool refit) {
  check(x.defined() && basis.defined() && basis.ndim() == 2 && basis.dim(0) == 1 && basis.dim(1) >= 1 &&
            basis.dim(1) <= kMaxBits && basis.dtype() == x.dtype(),
        "[quantize_by_basis] the basis must be [1, bits] with 1 to {} bits, of the activation's type",
        kMaxBits);
  BasisActivation out;
  dispatch_floating(x.dtype(), "quantize_by_basis", [&]<class T>() {
    const Basis v = read_row<T>(basis, 0);
    const Levels<T> levels(v, codes);
    out.low = levels.values.front();
    out.high = levels.values.back();
    Statistics s;
    if (levels.values.size() <= kernels::kFewLevels) {
      const std::vector<double> values(levels.values.begin(), levels.values.end());
      const std::vector<double> thresholds(levels.thresholds.begin(),
                                           levels.thresholds.begin() + std::ssize(values) - 1);
      std::vector<kernels::LevelSum> sums;
      out.values = kernels::round_to_levels(x, values, thresholds, refit ? &sums : nullptr);
      for (std::size_t k = 0; k < sums.size(); ++k) {
        s.count[levels.codes[k]] = sums[k].count;
        s.sum[levels.codes[k]] = sums[k].sum;
      }
    } else {
      out.values = search_levels(x, levels, refit ? &s : nullptr);
    }
    if (!refit) return;
    const Basis fitted = fit<T>(s, v, codes);
    out.refit = Tensor::empty_like(basis);
    for (std::size_t k = 0; k < fitted.size(); ++k) {
      check(std::isfinite(fitted[k]),
            "[quantize_by_basis] the activations are not finite, so no basis fits them; lower the learning "
            "rate");
      out.refit.data<T>()[k] = static_cast<T>(fitted[k]);
    }
  });
  return out;
}

void move_basis(const Tensor& basis, const Tensor& refit) {
  check_same(basis, refit, "move_basis");
  dispatch_floating(basis.dtype(), "move_basis", [&]<class T>() {
    for (std::int64_t k = 0; k < basis.numel(); ++k) {
      T& v = basis.data<T>()[k];
      v = static_cast<T>(kBasisMomentum * static_cast<double>(v) +
                         (1 - kBasisMomentum) * static_cast<double>(refit.data<T>()[k]));
    }
  });
}

Tensor decode_by_basis(const Tensor& codes, const Tensor& basis) {
  check(codes.dtype() == DType::u8, "[decode_by_basis] codes are u8, not {}", codes.dtype());
  Tensor values = Tensor::empty(codes.shape(), basis.dtype());
  check_basis(values, basis);
  const std::int64_t groups = basis.dim(0);
  const int bits = static_cast<int>(basis.dim(1));
  dispatch_floating(basis.dtype(), "decode_by_basis", [&]<class T>() {
    std::vector<T> levels;  // [groups, 2^bits]
    for (std::int64_t g = 0; g < groups; ++g) {
      const Basis row = read_row<T>(basis, g);
      for (std::size_t code = 0; code < std::size_t{1} << bits; ++code)
        levels.push_back(static_cast<T>(level_of(row, code, BasisCodes::signs)));
    }
    for (std::int64_t i = 0; i < codes.numel(); ++i) {
      const std::int64_t code = codes.data<std::uint8_t>()[i];
      values.data<T>()[i] = levels[static_cast<std::size_t>(((i % groups) << bits) + code)];
    }
  });
  return values;
}

}  // namespace goshawk
