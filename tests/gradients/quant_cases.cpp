// The straight-through ops against the functions whose derivatives they borrow.
#include <algorithm>
#include <cmath>

#include "autograd/ops.hpp"
#include "op_case.hpp"
#include "quant/dorefa.hpp"
#include "quant/fake_quantize.hpp"

using namespace goshawk;
using namespace goshawk::test;

namespace {

using V = std::vector<Variable>;

Variable constant(const std::vector<double>& values, const Shape& shape) {
  return Variable(Tensor::from(values, shape));
}

// clip(x, low, high) from two ReLUs; low and high broadcast.
Variable clip_between(const Variable& x, const Variable& low, const Variable& high) {
  return low + relu(x - low) - relu(x - high);
}

// Activations on both sides of 0 and of ±0.8, none on an edge.
Tensor activations() {
  return Tensor::from<double>({-1.3, -0.81, -0.5, -0.1, 0.05, 0.3, 0.61, 0.79, 0.85, 1.2, -0.79, 2.0},
                              {2, 3, 2});
}

// A 3-bit symmetric grid of step 0.25 whose range is [-0.75, 0.75], and one with a step for each of two
// channels.
const WeightGrid kLayerGrid{Tensor::from<double>({0.25}, {1}), Tensor::from<double>({0}, {1})};
const WeightGrid kChannelGrid{Tensor::from<double>({0.25, 0.1}, {2}), Tensor::from<double>({0, 0}, {2})};
const WeightSpec kLayerSpec{.bits = 3};
const WeightSpec kChannelSpec{.bits = 3, .granularity = Granularity::channel};

// LSQ's surrogate: with level − clipped position frozen at the point r, s·clip(w/s) + s·r = clip(w, low·s,
// high·s)
// + s·r, where low and high are the ends of the clip range in steps; the gradient of s is scaled by 1/√(n·q)
// for n elements and the outermost level q.
Variable lsq_surrogate(const Variable& w, const Variable& s, const CodeRange& range, double elements) {
  const std::int64_t channels = s.numel();
  const double low = range.code_min, high = range.code_max + 2 * range.half;
  const double outermost = range.code_max + range.half;
  Tensor r = Tensor::empty(w.shape(), DType::f64);
  for (std::int64_t i = 0; i < w.numel(); ++i) {
    const double step = s.value().data<double>()[i % channels];
    const double clipped = std::clamp(w.value().data<double>()[i] / step, low, high);
    const double level =
        std::clamp(std::nearbyint(clipped - range.half) + range.half, low + range.half, outermost);
    r.data<double>()[i] = level - clipped;
  }
  const double g = 1 / std::sqrt(elements * outermost);
  const Variable scaled = scale(s, g) + scale(s.detach(), 1 - g);
  return clip_between(w, scale(scaled, low), scale(scaled, high)) + mul(scaled, r);
}

Tensor weights() {
  return Tensor::from<double>({-1.1, -0.33, 0.07, 0.29, 0.46, 0.9, -0.61, 0.18}, {4, 2});
}

const AddCases straight_through({
    {"fake_quantize",
     [](const V& v) { return fake_quantize(v[0], kLayerSpec, kLayerGrid); },
     {weights()},
     [](const V& v) { return clip_between(v[0], constant({-0.75}, {1}), constant({0.75}, {1})); }},
    {"fake_quantize",
     [](const V& v) { return fake_quantize(v[0], kChannelSpec, kChannelGrid); },
     {weights()},
     [](const V& v) {
       return clip_between(v[0], constant({-0.75, -0.3}, {2}), constant({0.75, 0.3}, {2}));
     }},
    {"learned_step_quantize",
     [](const V& v) { return learned_step_quantize(v[0], v[1], kLayerSpec); },
     {weights(), Tensor::from<double>({0.21}, {1})},
     [](const V& v) {
       return lsq_surrogate(v[0], v[1], {-3, 3, 0}, 8);
     }},
    {"learned_step_quantize",
     [](const V& v) { return learned_step_quantize(v[0], v[1], kChannelSpec); },
     {weights(), Tensor::from<double>({0.21, 0.12}, {2})},
     [](const V& v) {
       return lsq_surrogate(v[0], v[1], {-3, 3, 0}, 4);
     }},
    {"learned_step_quantize",
     [](const V& v) {
       return learned_step_quantize(v[0], v[1], {.bits = 2, .scheme = WeightScheme::mid_rise});
     },
     {weights(), Tensor::from<double>({0.31}, {1})},
     [](const V& v) {
       return lsq_surrogate(v[0], v[1], {-2, 1, 0.5}, 8);
     }},
    {"learned_step_quantize",
     [](const V& v) {
       return learned_step_quantize(v[0], v[1], {.bits = 3, .scheme = WeightScheme::twos_complement});
     },
     {weights(), Tensor::from<double>({0.21}, {1})},
     [](const V& v) {
       return lsq_surrogate(v[0], v[1], {-4, 3, 0}, 8);
     }},
    {"learned_step_quantize",
     [](const V& v) { return learned_step_activation(v[0], v[1], 3); },
     {activations(), Tensor::from<double>({0.11}, {1})},
     [](const V& v) {
       return lsq_surrogate(v[0], v[1], {0, 7, 0}, 6);
     }},
    {"learned_step_quantize",
     [](const V& v) { return learned_step_activation(v[0], v[1], 4, true); },
     {activations(), Tensor::from<double>({0.103}, {1})},
     [](const V& v) {
       return lsq_surrogate(v[0], v[1], {-8, 7, 0}, 6);
     }},
    {"fake_quantize",
     [](const V& v) {
       const WeightSpec spec{.bits = 3, .scheme = WeightScheme::dorefa};
       return fake_quantize(v[0], spec, choose_grid(v[0].value(), spec));
     },
     {weights()},
     [](const V& v) { return dorefa_normalize(v[0]); }},
    {"tanh", [](const V& v) { return dorefa_normalize(v[0]); }, {weights()}},
    {"fake_quantize",
     [](const V& v) {
       const WeightSpec spec{.bits = 2, .scheme = WeightScheme::lq_nets};
       return fake_quantize(v[0], spec, choose_grid(v[0].value(), spec));
     },
     {weights()},
     [](const V& v) { return scale(v[0], 1); }},
    {"fake_quantize",
     [](const V& v) {
       return basis_quantize(v[0], Tensor::from<double>({0.2, 0.61}, {1, 2}), BasisCodes::binary);
     },
     {activations()},
     [](const V& v) { return clip_between(v[0], constant({0}, {1}), constant({0.81}, {1})); }},
    {"fake_quantize",
     [](const V& v) {
       return basis_quantize(v[0], Tensor::from<double>({0.2, 0.615}, {1, 2}), BasisCodes::signs);
     },
     {activations()},
     [](const V& v) { return clip_between(v[0], constant({-0.815}, {1}), constant({0.815}, {1})); }},
    {"pact",
     [](const V& v) { return pact(v[0], v[1], 4); },
     {activations(), Tensor::from<double>({0.8}, {1})},
     [](const V& v) { return relu(v[0]) - relu(v[0] - v[1]); }},
    {"pact",
     [](const V& v) { return pact(v[0], v[1], 4, true); },
     {activations(), Tensor::from<double>({0.8}, {1})},
     [](const V& v) { return clip_between(v[0], neg(v[1]), v[1]); }},
    // The two are linear in their differentiable arguments, so multiply by one to reach the second order.
    {"clip_grad",
     [](const V& v) {
       const ClipGrad g = clip_grad(v[0], activations(), 0.8, true);
       return mul(g.input, v[0]) + mul(g.clip, g.clip);
     },
     {normal({2, 3, 2})}},
    {"clip_tangent",
     [](const V& v) { return mul(clip_tangent(v[0], v[1], activations(), 0.8, false), v[0]); },
     {normal({2, 3, 2}), normal({1}, 2)}},
});

}  // namespace
