#include "quant/quantizer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "quant/dorefa.hpp"
#include "quant/enum_names.hpp"
#include "quant/lq_nets.hpp"
#include "quant/rounding.hpp"

namespace goshawk {
namespace {

// Ratios of the min-max range that the mse rule tries first, and around the best of them.
constexpr int kCoarseSteps = 32;
constexpr int kFineSteps = 8;
constexpr int kLeastSquaresSteps = 3;
// A group of zeros under mid_rise, which has no zero level: small enough to vanish, large enough not to go
// subnormal.
constexpr double kTinyStep = 1e-12;

constexpr std::array kSchemes = {
    std::pair(WeightScheme::symmetric, std::string_view("symmetric")),
    std::pair(WeightScheme::mid_rise, std::string_view("mid_rise")),
    std::pair(WeightScheme::asymmetric, std::string_view("asymmetric")),
    std::pair(WeightScheme::twos_complement, std::string_view("twos_complement")),
    std::pair(WeightScheme::dorefa, std::string_view("dorefa")),
    std::pair(WeightScheme::lq_nets, std::string_view("lq_nets"))};
constexpr std::array kGranularities = {std::pair(Granularity::layer, std::string_view("layer")),
                                       std::pair(Granularity::channel, std::string_view("channel"))};
constexpr std::array kRules = {std::pair(ClipRule::min_max, std::string_view("min_max")),
                               std::pair(ClipRule::mse, std::string_view("mse")),
                               std::pair(ClipRule::percentile, std::string_view("percentile")),
                               std::pair(ClipRule::learned, std::string_view("learned")),
                               std::pair(ClipRule::lsq, std::string_view("lsq"))};

// One group of weights that share a step, contiguous, and its grid under search.
template <class T>
struct Line {
  T scale = 1;
  T offset = 0;
};

template <class T>
class GroupSearch {
 public:
  GroupSearch(const T* w, std::int64_t n, const WeightSpec& spec)
      : w_(w), n_(n), spec_(spec), range_(code_range(spec)) {
    const auto [low, high] = std::minmax_element(w, w + n);
    low_ = *low;
    high_ = *high;
  }

  Line<T> run() const {
    if (spec_.scheme == WeightScheme::asymmetric) return asymmetric();
    return symmetric();
  }

 private:
  Line<T> line(double scale) const {
    const T s = static_cast<T>(scale);
    return {s, static_cast<T>(range_.half) * s};
  }

  // ‖Q(w) − w‖² in f64, over fixed chunks added in order.
  double error(const Line<T>& grid) const {
    const std::int64_t chunks = (n_ + kElementwiseGrain - 1) / kElementwiseGrain;
    std::vector<double> partial(static_cast<std::size_t>(chunks));
    parallel_for(n_, kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
      const Rounding<T> q(range_, grid.scale, grid.offset);
      constexpr int kLanes = 8;
      double lanes[kLanes] = {};
      std::int64_t i = begin;
      for (; i + kLanes <= end; i += kLanes) {
        for (int k = 0; k < kLanes; ++k) {
          const double e = q.value(w_[i + k]) - w_[i + k];
          lanes[k] += e * e;
        }
      }
      for (; i < end; ++i) {
        const double e = q.value(w_[i]) - w_[i];
        lanes[0] += e * e;
      }
      double sum = 0;
      for (double lane : lanes) sum += lane;
      partial[static_cast<std::size_t>(begin / kElementwiseGrain)] = sum;
    });
    double total = 0;
    for (double p : partial) total += p;
    return total;
  }

  // Keeps the better of `best` and `candidate`; of equals the one that was there first.
  bool improve(Line<T>& best, double& best_error, const Line<T>& candidate) const {
    if (!(candidate.scale >= std::numeric_limits<T>::min())) return false;
    const double e = error(candidate);
    if (!(e < best_error)) return false;
    best = candidate;
    best_error = e;
    return true;
  }

  Line<T> symmetric() const {
    const double magnitude =
        std::max(std::abs(static_cast<double>(low_)), std::abs(static_cast<double>(high_)));
    if (magnitude < std::numeric_limits<T>::min()) return line(range_.half > 0 ? kTinyStep : 1);
    if (spec_.bits == 1) return line(2 * mean_magnitude());
    // Esser et al. 2020, section 2.1.
    if (spec_.clip == ClipRule::lsq)
      return line(2 * mean_magnitude() / std::sqrt(range_.code_max + range_.half));
    if (spec_.clip == ClipRule::percentile) {
      std::vector<double> magnitudes(w_, w_ + n_);
      for (double& m : magnitudes) m = std::abs(m);
      // More zeros than that: the percentile is no range.
      const double clip = nearest_rank(magnitudes, spec_.percentile);
      return line(full_step(clip > 0 ? clip : magnitude));
    }
    const double full = full_step(magnitude);
    Line<T> best = line(full);
    if (spec_.clip == ClipRule::min_max) return best;
    double best_error = error(best);
    int ratio = kCoarseSteps;
    for (int k = kCoarseSteps - 1; k >= 1; --k) {
      if (improve(best, best_error, line(full * k / kCoarseSteps))) ratio = k;
    }
    for (int k = -kFineSteps + 1; k < kFineSteps; ++k) {
      improve(best, best_error, line(full * (ratio + static_cast<double>(k) / kFineSteps) / kCoarseSteps));
    }
    // With the codes held, the best step is a least-squares fit of w on the levels (a Lloyd iteration).
    for (int k = 0; k < kLeastSquaresSteps; ++k) {
      const Rounding<T> q(range_, best.scale, best.offset);
      double wl = 0, ll = 0;
      for (std::int64_t i = 0; i < n_; ++i) {
        const double level = q.code(w_[i]) + range_.half;
        wl += w_[i] * level;
        ll += level * level;
      }
      if (!(ll > 0) || !improve(best, best_error, line(wl / ll))) break;
    }
    return best;
  }

  double mean_magnitude() const {
    double sum = 0;
    for (std::int64_t i = 0; i < n_; ++i) sum += std::abs(static_cast<double>(w_[i]));
    return sum / static_cast<double>(n_);
  }

  // The step whose range just holds the weights of at most that magnitude.
  double full_step(double magnitude) const {
    if (spec_.scheme == WeightScheme::twos_complement) {
      const double low = std::max(static_cast<double>(low_), -magnitude);
      const double high = std::min(static_cast<double>(high_), magnitude);
      return std::max(low / range_.code_min, high / range_.code_max);
    }
    // The outermost point of the clip range, in steps.
    return magnitude / (range_.code_max + 2 * range_.half);
  }

  Line<T> span(double low, double high) const {
    return {static_cast<T>((high - low) / range_.code_max), static_cast<T>(low)};
  }

  Line<T> asymmetric() const {
    const double low = low_, high = high_;
    if (high - low < std::numeric_limits<T>::min() * 256) return {T{1}, low_};
    Line<T> best = span(low, high);
    if (spec_.clip == ClipRule::min_max) return best;
    if (spec_.clip == ClipRule::percentile) {
      std::vector<double> sorted(w_, w_ + n_);
      const double tail = (100 - spec_.percentile) / 2;
      const double from = nearest_rank(sorted, tail), to = nearest_rank(sorted, 100 - tail);
      return to - from < std::numeric_limits<T>::min() * 256 ? best : span(from, to);
    }
    double best_error = error(best);
    double sum = 0;
    for (std::int64_t i = 0; i < n_; ++i) sum += w_[i];
    const double centre = sum / static_cast<double>(n_);
    // Both ends together, then each in turn.
    double ratio_low = 1, ratio_high = 1;
    const auto shrunk = [&](double a, double b) {
      return span(centre + (low - centre) * a, centre + (high - centre) * b);
    };
    for (int k = kCoarseSteps - 1; k >= 1; --k) {
      const double r = static_cast<double>(k) / kCoarseSteps;
      if (improve(best, best_error, shrunk(r, r))) ratio_low = ratio_high = r;
    }
    for (const double step : {0.05, 0.02, 0.01}) {
      const double from_low = ratio_low, from_high = ratio_high;
      for (int k = -kFineSteps; k <= kFineSteps; ++k) {
        const double r = std::min(1.0, from_low + k * step);
        if (improve(best, best_error, shrunk(r, ratio_high))) ratio_low = r;
      }
      for (int k = -kFineSteps; k <= kFineSteps; ++k) {
        const double r = std::min(1.0, from_high + k * step);
        if (improve(best, best_error, shrunk(ratio_low, r))) ratio_high = r;
      }
    }
    for (int k = 0; k < kLeastSquaresSteps; ++k) {
      const Rounding<T> q(range_, best.scale, best.offset);
      const double n = static_cast<double>(n_);
      double c1 = 0, c2 = 0, wc = 0;
      for (std::int64_t i = 0; i < n_; ++i) {
        const double code = q.code(w_[i]);
        c1 += code;
        c2 += code * code;
        wc += w_[i] * code;
      }
      const double variance = c2 - c1 * c1 / n;
      if (!(variance > 0)) break;
      const double slope = (wc - c1 * sum / n) / variance;
      if (!improve(best, best_error, {static_cast<T>(slope), static_cast<T>((sum - slope * c1) / n)})) break;
    }
    return best;
  }

  const T* w_;
  std::int64_t n_;
  WeightSpec spec_;
  CodeRange range_;
  T low_ = 0, high_ = 0;
};

void check_weights(const Tensor& w) {
  check(is_floating(w.dtype()) && w.ndim() >= 1 && w.numel() > 0,
        "[quantize_weights] weights must be a non-empty f32 or f64 tensor with an output channel as its last "
        "dimension, not {} {}",
        w.dtype(), w.shape());
  dispatch_floating(w.dtype(), "quantize_weights", [&]<class T>() {
    const T* p = w.data<T>();
    for (std::int64_t i = 0; i < w.numel(); ++i) {
      check(std::isfinite(p[i]),
            "[quantize_weights] weight {} of {} {} is {}; the training that made it diverged", i, w.dtype(),
            w.shape(), p[i]);
    }
  });
}

// The groups of w as rows of a contiguous [groups, elements] array: w itself, or its transpose.
template <class T>
std::vector<T> channel_rows(const Tensor& w) {
  const std::int64_t channels = w.dim(-1), rows = w.numel() / channels;
  std::vector<T> out(static_cast<std::size_t>(w.numel()));
  const T* from = w.data<T>();
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < channels; ++c)
      out[static_cast<std::size_t>(c * rows + r)] = from[r * channels + c];
  }
  return out;
}

}  // namespace

void check_bits(int bits, std::string_view op) {
  check((bits >= 1 && bits <= 8) || bits == kFullPrecision,
        "[{}] {} bits are not supported; use 1 to 8, or 32 for none", op, bits);
}

std::string_view weight_scheme_name(WeightScheme scheme) {
  return name_of(scheme, kSchemes);
}
std::string_view granularity_name(Granularity granularity) {
  return name_of(granularity, kGranularities);
}
std::string_view clip_rule_name(ClipRule rule) {
  return name_of(rule, kRules);
}
WeightScheme parse_weight_scheme(std::string_view name) {
  return parse_name(name, kSchemes, "weight scheme");
}
Granularity parse_granularity(std::string_view name) {
  return parse_name(name, kGranularities, "granularity");
}
ClipRule parse_clip_rule(std::string_view name) {
  return parse_name(name, kRules, "clip rule");
}

CodeRange code_range(const WeightSpec& spec) {
  check_bits(spec.bits, "code_range");
  check(spec.bits != kFullPrecision, "[code_range] 32 bits are not quantized and have no codes");
  const int half_levels = 1 << (spec.bits - 1);
  if (spec.scheme == WeightScheme::asymmetric || spec.scheme == WeightScheme::lq_nets)
    return {0, 2 * half_levels - 1, 0};
  if (spec.scheme == WeightScheme::mid_rise || spec.scheme == WeightScheme::dorefa || spec.bits == 1)
    return {-half_levels, half_levels - 1, 0.5};
  if (spec.scheme == WeightScheme::twos_complement) return {-half_levels, half_levels - 1, 0};
  return {-half_levels + 1, half_levels - 1, 0};
}

DType code_type(const WeightSpec& spec) {
  return code_range(spec).code_min < 0 ? DType::i8 : DType::u8;
}

double nearest_rank(std::vector<double>& values, double percentile) {
  // 99.9 % of 1000 are 999, which the product exceeds by its rounding.
  const double share = percentile / 100 * static_cast<double>(values.size());
  const double rank = std::ceil(share * (1 - 1e-12)) - 1;
  const auto nth = values.begin() + static_cast<std::ptrdiff_t>(std::max(rank, 0.0));
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

std::string describe(const WeightSpec& spec) {
  return fmt::format("{} {} {}", weight_scheme_name(spec.scheme), granularity_name(spec.granularity),
                     clip_rule_name(spec.clip));
}

void check_spec(const WeightSpec& spec, std::string_view op) {
  check_bits(spec.bits, op);
  check(spec.percentile > 0 && spec.percentile <= 100, "[{}] the percentile {} is not in (0, 100]", op,
        spec.percentile);
  const bool has_step = spec.scheme == WeightScheme::symmetric || spec.scheme == WeightScheme::mid_rise ||
                        spec.scheme == WeightScheme::twos_complement;
  check(has_step || !has_learned_step(spec),
        "[{}] a learned step needs levels that are multiples of it; use the symmetric, mid_rise or "
        "twos_complement scheme, or another clip rule than {} with {}",
        op, clip_rule_name(spec.clip), weight_scheme_name(spec.scheme));
  check(spec.scheme != WeightScheme::dorefa || spec.granularity == Granularity::layer,
        "[{}] dorefa normalises a whole layer; use the granularity layer", op);
}

WeightGrid choose_grid(const Tensor& w, const WeightSpec& spec) {
  check_weights(w);
  check_spec(spec, "choose_grid");
  if (spec.scheme == WeightScheme::lq_nets) return {{}, {}, choose_basis(w, spec.bits, spec.granularity)};
  if (spec.scheme == WeightScheme::dorefa && spec.bits > 1) {
    const double step = 2.0 / ((1 << spec.bits) - 1);
    return {Tensor::full({1}, w.dtype(), step), Tensor::full({1}, w.dtype(), step / 2)};
  }
  const std::int64_t groups = spec.granularity == Granularity::channel ? w.dim(-1) : 1;
  WeightGrid grid{Tensor::empty({groups}, w.dtype()), Tensor::empty({groups}, w.dtype())};
  dispatch_floating(w.dtype(), "choose_grid", [&]<class T>() {
    T* scale = grid.scale.data<T>();
    T* offset = grid.offset.data<T>();
    if (groups == 1) {
      const Line<T> line = GroupSearch<T>(w.data<T>(), w.numel(), spec).run();
      *scale = line.scale;
      *offset = line.offset;
      return;
    }
    const std::vector<T> rows = channel_rows<T>(w);
    const std::int64_t n = w.numel() / groups;
    parallel_for(groups, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t g = begin; g < end; ++g) {
        const Line<T> line = GroupSearch<T>(rows.data() + g * n, n, spec).run();
        scale[g] = line.scale;
        offset[g] = line.offset;
      }
    });
  });
  return grid;
}

QuantizedTensor quantize_weights(const Tensor& w, const WeightSpec& spec) {
  check_bits(spec.bits, "quantize_weights");
  if (spec.bits == kFullPrecision) return {kFullPrecision, w, {}, {}};
  return quantize_weights(w, spec, choose_grid(w, spec));
}

QuantizedTensor quantize_weights(const Tensor& w, const WeightSpec& spec, const WeightGrid& grid) {
  check_bits(spec.bits, "quantize_weights");
  if (spec.bits == kFullPrecision) return {kFullPrecision, w, {}, {}};
  check_weights(w);
  if (spec.scheme == WeightScheme::lq_nets) {
    BasisEncoding encoding = encode_by_basis(w, grid.basis);
    return {spec.bits, std::move(encoding.values), std::move(encoding.codes), grid};
  }
  check_grid(w, grid, "quantize_weights");
  const Tensor source =
      spec.scheme == WeightScheme::dorefa && spec.bits > 1 ? dorefa_normalize(w).value() : w;
  const CodeRange range = code_range(spec);
  const DType type = code_type(spec);
  QuantizedTensor out{spec.bits, Tensor::empty_like(w), Tensor::empty(w.shape(), type), grid};
  dispatch_floating(w.dtype(), "quantize_weights", [&]<class T>() {
    const T* from = source.data<T>();
    T* to = out.dequantized.data<T>();
    for_each_weight<T>(w, grid, range,
                       [=](std::int64_t i, const Rounding<T>& q) { to[i] = q.value(from[i]); });
    const auto store_codes = [&]<class C>() {
      C* codes = out.codes.data<C>();
      for_each_weight<T>(w, grid, range, [=](std::int64_t i, const Rounding<T>& q) {
        codes[i] = static_cast<C>(q.code(from[i]));
      });
    };
    if (type == DType::u8) {
      store_codes.template operator()<std::uint8_t>();
    } else {
      store_codes.template operator()<std::int8_t>();
    }
  });
  return out;
}

Tensor dequantize(const Tensor& codes, const WeightSpec& spec, const WeightGrid& grid) {
  const CodeRange range = code_range(spec);
  check(codes.dtype() == code_type(spec), "[dequantize] codes of {} levels are {}, not {}",
        weight_scheme_name(spec.scheme), code_type(spec), codes.dtype());
  if (spec.scheme == WeightScheme::lq_nets) return decode_by_basis(codes, grid.basis);
  Tensor levels = Tensor::empty(codes.shape(), grid.scale.dtype());
  check_grid(levels, grid, "dequantize");
  dispatch_floating(levels.dtype(), "dequantize", [&]<class T>() {
    T* to = levels.data<T>();
    const auto decode = [&](const auto* from) {
      for_each_weight<T>(levels, grid, range, [=](std::int64_t i, const Rounding<T>& q) {
        to[i] = q.level(static_cast<T>(from[i]));
      });
    };
    if (codes.dtype() == DType::u8) {
      decode(codes.data<std::uint8_t>());
    } else {
      decode(codes.data<std::int8_t>());
    }
  });
  return levels;
}

double perturbation(const Tensor& w, const WeightSpec& spec) {
  if (spec.bits == kFullPrecision) return 0;
  const Tensor q = quantize_weights(w, spec).dequantized;
  if (spec.scheme != WeightScheme::dorefa) return squared_distance(q, w);
  double qw = 0, qq = 0, sum = 0;
  dispatch_floating(w.dtype(), "perturbation", [&]<class T>() {
    const T* level = q.data<T>();
    const T* original = w.data<T>();
    for (std::int64_t i = 0; i < w.numel(); ++i) {
      qw += static_cast<double>(level[i]) * original[i];
      qq += static_cast<double>(level[i]) * level[i];
    }
    const double c = qq > 0 ? qw / qq : 0;
    for (std::int64_t i = 0; i < w.numel(); ++i) {
      const double d = c * level[i] - original[i];
      sum += d * d;
    }
  });
  return sum;
}

double squared_distance(const Tensor& a, const Tensor& b) {
  check_same(a, b, "squared_distance");
  double sum = 0;
  dispatch_floating(a.dtype(), "squared_distance", [&]<class T>() {
    const T* p = a.data<T>();
    const T* q = b.data<T>();
    for (std::int64_t i = 0; i < a.numel(); ++i) {
      const double d = static_cast<double>(p[i]) - static_cast<double>(q[i]);
      sum += d * d;
    }
  });
  return sum;
}

std::int64_t distinct_levels(const Tensor& w, Granularity granularity) {
  check_weights(w);
  std::int64_t most = 0;
  dispatch_floating(w.dtype(), "distinct_levels", [&]<class T>() {
    const std::int64_t groups = granularity == Granularity::channel ? w.dim(-1) : 1;
    std::vector<T> rows = groups == 1 ? w.to_vector<T>() : channel_rows<T>(w);
    const std::int64_t n = w.numel() / groups;
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto begin = rows.begin() + g * n;
      std::sort(begin, begin + n);
      most = std::max<std::int64_t>(most, std::unique(begin, begin + n) - begin);
    }
  });
  return most;
}

}  // namespace goshawk
