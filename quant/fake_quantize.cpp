#include "quant/fake_quantize.hpp"

#include <algorithm>
#include <cmath>

#include "autograd/ops.hpp"
#include "core/kernels/clip.hpp"
#include "quant/dorefa.hpp"
#include "quant/rounding.hpp"

namespace goshawk {
namespace {

const Op& kFakeQuantize = register_op("fake_quantize", OpKind::surrogate, Linearity::linear);
const Op& kLearnedStepQuantize = register_op("learned_step_quantize", OpKind::surrogate, Linearity::linear);
const Op& kPact = register_op("pact", OpKind::surrogate, Linearity::linear);
const Op& kClipGrad = register_op("clip_grad", Linearity::linear);
const Op& kClipTangent = register_op("clip_tangent", Linearity::linear);

// Slack, in steps, at the ends of a fixed clip range: the extremes that define the range lie on it up to
// rounding.
constexpr double kEdgeSlack = 1e-3;

// How far the clip range reaches beyond the outermost code, in steps.
double clip_margin(const CodeRange& range) {
  return range.half;
}

// 1 where w lies in the clip range of a fixed grid, else 0.
Tensor inside_mask(const Tensor& w, const WeightGrid& grid, const CodeRange& range) {
  Tensor mask = Tensor::empty_like(w);
  dispatch_floating(w.dtype(), "fake_quantize", [&]<class T>() {
    const T* from = w.data<T>();
    T* to = mask.data<T>();
    const T low = static_cast<T>(range.code_min - clip_margin(range) - kEdgeSlack);
    const T high = static_cast<T>(range.code_max + clip_margin(range) + kEdgeSlack);
    for_each_weight<T>(w, grid, range, [=](std::int64_t i, const Rounding<T>& q) {
      const T position = q.position(from[i]);
      to[i] = position < low || position > high ? T{0} : T{1};  // a NaN's gradient goes on, as in a ReLU
    });
  });
  return mask;
}

// What a weight's learned step sees: the mask of ∂Q/∂w and the factor of ∂Q/∂step.
struct StepDerivative {
  Tensor inside;
  Tensor step;
};

// Levels ±½ alone: one bit without a zero.
bool is_binary(const CodeRange& range) {
  return range.code_max == 0;
}

StepDerivative step_derivative(const Tensor& w, const Tensor& signed_step, const WeightGrid& grid,
                               const CodeRange& range) {
  StepDerivative d{Tensor::empty_like(w), Tensor::empty_like(w)};
  dispatch_floating(w.dtype(), "learned_step_quantize", [&]<class T>() {
    const T* from = w.data<T>();
    const T* steps = signed_step.data<T>();
    T* inside = d.inside.data<T>();
    T* factor = d.step.data<T>();
    const T half = static_cast<T>(range.half);
    const T low = static_cast<T>(range.code_min - clip_margin(range));
    const T high = static_cast<T>(range.code_max + clip_margin(range));
    const bool binary = is_binary(range);
    const std::int64_t groups = signed_step.numel();
    for_each_weight<T>(w, grid, range, [=](std::int64_t i, const Rounding<T>& q) {
      const T sign = steps[groups == 1 ? 0 : i % groups] > 0 ? T{1} : T{-1};
      const T position = q.position(from[i]);
      const T level = q.code(from[i]) + half;
      const bool in = !(position <= low || position >= high);
      inside[i] = binary || in ? T{1} : T{0};
      factor[i] = sign * (in && !binary ? level - (position + half) : level);
    });
  });
  return d;
}

// PACT's grid: codes up to 2^bits − 1, or ±(2^(bits−1) − 1) where x has a sign.
kernels::ClipGrid pact_grid(const Tensor& clip, int bits, bool is_signed) {
  const int levels = is_signed ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
  kernels::ClipGrid grid;
  dispatch_floating(clip.dtype(), "pact", [&]<class T>() {
    const T alpha = *clip.data<T>();
    grid = {.low = static_cast<double>(is_signed ? -alpha : T{0}),
            .high = static_cast<double>(alpha),
            .to_code = static_cast<double>(static_cast<T>(levels) / alpha),
            .to_value = static_cast<double>(alpha / static_cast<T>(levels))};
  });
  return grid;
}

Variable zeros_if_undefined(const Variable& v, const Shape& shape, DType dtype) {
  return v.defined() ? v : Variable(Tensor::zeros(shape, dtype));
}

// How clip(x, 0 or −clip, clip) moves along the tangents of x and of the clip.
Variable moved(const Forward& d, const Tensor& x, double clip, bool is_signed) {
  return clip_tangent(zeros_if_undefined(d.tangent(0), x.shape(), x.dtype()),
                      zeros_if_undefined(d.tangent(1), {1}, x.dtype()), x, clip, is_signed);
}

// The outermost level in steps, LSQ's Q_P.
double outermost(const CodeRange& range) {
  return range.code_max + range.half;
}

// LSQ's g (section 2.2), for `elements` numbers that share a step.
double lsq_gradient_scale(const CodeRange& range, std::int64_t elements) {
  return 1 / std::sqrt(static_cast<double>(elements) * outermost(range));
}

// The same for a step that began at range/Q_P. There a clipped weight moves the step by Q_P^1.5 of what it is
// worth itself, 70 times more at 8 bits than at 4: at a learning rate of 0.05 half of the codes fell out of
// use within 300 steps of ResNet-20, in some channels all but the innermost eight. So no step moves faster,
// for its size, than one of 4 bits.
double range_gradient_scale(const CodeRange& range, std::int64_t elements) {
  constexpr double kFourBits = 7.5;
  return lsq_gradient_scale(range, elements) * std::pow(std::min(1.0, kFourBits / outermost(range)), 1.5);
}

// Both learned steps; `gradient_scale` multiplies the gradient of the step.
Variable learned_step(const Variable& w, const Variable& step, const CodeRange& range,
                      double gradient_scale) {
  WeightGrid grid{Tensor::empty_like(step.value()), Tensor::empty_like(step.value())};
  check_grid(w.value(), grid, "learned_step_quantize");
  Tensor out = Tensor::empty_like(w.value());
  dispatch_floating(w.dtype(), "learned_step_quantize", [&]<class T>() {
    for (std::int64_t g = 0; g < step.numel(); ++g) {
      const T s = std::abs(step.value().data<T>()[g]);
      check(s > 0 && std::isfinite(s),
            "[learned_step_quantize] step {} of {} is {}; it must be finite and not zero: lower the learning "
            "rate",
            g, step.numel(), s);
      grid.scale.data<T>()[g] = s;
      grid.offset.data<T>()[g] = static_cast<T>(range.half) * s;
    }
    const T* from = w.value().data<T>();
    T* to = out.data<T>();
    for_each_weight<T>(w.value(), grid, range,
                       [=](std::int64_t i, const Rounding<T>& q) { to[i] = q.value(from[i]); });
  });
  const Tensor value = w.value(), step_value = step.value();
  return record(
      kLearnedStepQuantize, {w, step}, std::move(out),
      [value, step_value, grid, range, gradient_scale](const Backward& d) {
        const StepDerivative derivative = step_derivative(value, step_value, grid, range);
        Variable step_grad;
        if (d.needs(1)) {
          const std::int64_t groups = step_value.numel();
          step_grad = groups == 1 ? reshape(dot(d.grad(), derivative.step), {1})
                                  : channel_dot(d.grad(), derivative.step);
          step_grad = scale(step_grad, gradient_scale);
        }
        return std::vector{d.needs(0) ? mask_positive(d.grad(), derivative.inside) : Variable(), step_grad};
      });
}

}  // namespace

Variable fake_quantize(const Variable& w, const WeightSpec& spec, const WeightGrid& grid) {
  check_bits(spec.bits, "fake_quantize");
  if (spec.bits == kFullPrecision) return w;
  if (spec.scheme == WeightScheme::lq_nets) {
    return record(
        kFakeQuantize, {w}, encode_by_basis(w.value(), grid.basis).values,
        [](const Backward& d) { return std::vector{d.grad()}; }, symmetric);
  }
  if (spec.scheme == WeightScheme::dorefa && spec.bits > 1) {
    return fake_quantize(dorefa_normalize(w), {.bits = spec.bits, .scheme = WeightScheme::mid_rise}, grid);
  }
  check_grid(w.value(), grid, "fake_quantize");
  const CodeRange range = code_range(spec);
  Tensor out = Tensor::empty_like(w.value());
  dispatch_floating(w.dtype(), "fake_quantize", [&]<class T>() {
    const T* from = w.value().data<T>();
    T* to = out.data<T>();
    for_each_weight<T>(w.value(), grid, range,
                       [=](std::int64_t i, const Rounding<T>& q) { to[i] = q.value(from[i]); });
  });
  const Tensor value = w.value();
  return record(
      kFakeQuantize, {w}, std::move(out),
      [value, grid, range, bits = spec.bits](const Backward& d) {
        if (bits == 1) return std::vector{d.grad()};
        return std::vector{mask_positive(d.grad(), inside_mask(value, grid, range))};
      },
      symmetric);
}

Variable learned_step_quantize(const Variable& w, const Variable& step, const WeightSpec& spec) {
  check_bits(spec.bits, "learned_step_quantize");
  if (spec.bits == kFullPrecision) return w;
  WeightSpec learned = spec;
  if (!has_learned_step(spec)) learned.clip = ClipRule::learned;
  check_spec(learned, "learned_step_quantize");
  const CodeRange range = code_range(spec);
  const std::int64_t elements = w.numel() / std::max<std::int64_t>(step.numel(), 1);
  return learned_step(w, step, range,
                      learned.clip == ClipRule::lsq ? lsq_gradient_scale(range, elements)
                                                    : range_gradient_scale(range, elements));
}

Variable learned_step_activation(const Variable& x, const Variable& step, int bits, bool is_signed) {
  check_bits(bits, "learned_step_activation");
  if (bits == kFullPrecision) return x;
  check(!is_signed || bits >= 2,
        "[learned_step_activation] 1 bit has no signed form; give this activation 2 bits or more");
  check(step.defined() && step.shape() == Shape{1} && x.value().ndim() >= 1 && x.numel() > 0,
        "[learned_step_activation] the step must be one number of shape [1] and the activation not empty");
  const int half_levels = 1 << (bits - 1);
  const CodeRange range =
      is_signed ? CodeRange{-half_levels, half_levels - 1, 0} : CodeRange{0, 2 * half_levels - 1, 0};
  return learned_step(x, step, range, lsq_gradient_scale(range, x.numel() / x.value().dim(0)));
}

Variable pact(const Variable& x, const Variable& clip, int bits, bool is_signed) {
  check_bits(bits, "pact");
  if (bits == kFullPrecision) return x;
  check(clip.defined() && clip.shape() == Shape{1} && clip.dtype() == x.dtype(),
        "[pact] the clip must be one {} number of shape [1]", x.dtype());
  check(!is_signed || bits >= 2, "[pact] 1 bit has no signed form; give this activation 2 bits or more");
  const double alpha = clip.value().item();
  check(alpha > 0 && std::isfinite(alpha),
        "[pact] the clip is {} and must be positive; lower its learning rate or weight decay, or calibrate "
        "again",
        alpha);
  Tensor out = kernels::clip_round(x.value(), pact_grid(clip.value(), bits, is_signed));
  return record(
      kPact, {x, clip}, std::move(out),
      [value = x.value(), alpha, is_signed](const Backward& d) {
        ClipGrad g = clip_grad(d.grad(), value, alpha, is_signed);
        return std::vector{std::move(g.input), std::move(g.clip)};
      },
      [value = x.value(), alpha, is_signed](const Forward& d) {
        return std::vector{moved(d, value, alpha, is_signed)};
      });
}

Variable basis_quantize(const Variable& x, const Tensor& basis, BasisCodes codes, Tensor* refit) {
  BasisActivation q = quantize_by_basis(x.value(), basis, codes, refit != nullptr);
  if (refit != nullptr) *refit = std::move(q.refit);
  // With codes ±1 the lowest level is minus the highest; with 0 and 1 it is zero.
  const bool is_signed = codes == BasisCodes::signs;
  return record(
      kFakeQuantize, {x}, std::move(q.values),
      [value = x.value(), high = q.high, is_signed](const Backward& d) {
        return std::vector{clip_grad(d.grad(), value, high, is_signed).input};
      },
      symmetric);
}

ClipGrad clip_grad(const Variable& grad, const Tensor& x, double clip, bool is_signed) {
  kernels::ClipGradient value = kernels::clip_gradient(grad.value(), x, is_signed ? -clip : 0, clip);
  const double total = is_signed ? value.high - value.low : value.high;
  const DType dtype = x.dtype();
  std::vector<Variable> out = record(
      kClipGrad, {grad}, {std::move(value.input), Tensor::full({1}, dtype, total)},
      [x, clip, is_signed, dtype](const Backward& d) {
        return std::vector{clip_tangent(zeros_if_undefined(d.grad(0), x.shape(), dtype),
                                        zeros_if_undefined(d.grad(1), {1}, dtype), x, clip, is_signed)};
      },
      [x, clip, is_signed](const Forward& d) {
        ClipGrad g = clip_grad(d.tangent(), x, clip, is_signed);
        return std::vector{std::move(g.input), std::move(g.clip)};
      });
  return {std::move(out[0]), std::move(out[1])};
}

Variable clip_tangent(const Variable& dx, const Variable& da, const Tensor& x, double clip, bool is_signed) {
  check_same(dx.value(), x, "clip_tangent");
  check(da.shape() == Shape{1} && da.dtype() == x.dtype(),
        "[clip_tangent] the clip's tangent must be [1], not {}", da.shape());
  Tensor out = Tensor::empty_like(x);
  dispatch_floating(x.dtype(), "clip_tangent", [&]<class T>() {
    const T alpha = static_cast<T>(clip);
    const T low = is_signed ? -alpha : T{0};
    const T at_high = *da.value().data<T>();
    const T at_low = is_signed ? -at_high : T{0};
    const T* __restrict tangent = dx.value().data<T>();
    const T* __restrict at = x.data<T>();
    T* __restrict to = out.data<T>();
    parallel_for(x.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        to[i] = at[i] >= alpha ? at_high : (at[i] <= low ? at_low : tangent[i]);
      }
    });
  });
  return record(
      kClipTangent, {dx, da}, std::move(out),
      [x, clip, is_signed](const Backward& d) {
        ClipGrad g = clip_grad(d.grad(), x, clip, is_signed);
        return std::vector{std::move(g.input), std::move(g.clip)};
      },
      [x, clip, is_signed](const Forward& d) { return std::vector{moved(d, x, clip, is_signed)}; });
}

}  // namespace goshawk
