// Quantizers of weight tensors: which levels there are, where the clip range ends, and Q(w) itself.
// Nothing here is differentiable; quant/fake_quantize.hpp holds the ops that training uses.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/tensor.hpp"

namespace goshawk {

/// 32 bits means "not quantized"; otherwise 1 to 8.
inline constexpr int kFullPrecision = 32;
/// Of the picture, the input of a network's first layer, wherever the inputs of layers are quantized.
inline constexpr int kPictureBits = 8;
/// The same beside inputs of other layers at these bits.
constexpr int picture_bits(int activation_bits) {
  return activation_bits == kFullPrecision ? kFullPrecision : kPictureBits;
}
/// Throws Error naming `op` unless bits is 1 … 8 or 32.
void check_bits(int bits, std::string_view op);

/// The levels of a b-bit weight quantizer with step Δ.
enum class WeightScheme : std::uint8_t {
  symmetric,  ///< Δ·{−n, …, n}, n = 2^(b−1) − 1: zero is a level and one code is unused (3 levels at 2 bits)
  mid_rise,    ///< Δ·{−h + ½, …, h − ½}, h = 2^(b−1): all 2^b levels, symmetric, none at zero
  asymmetric,  ///< q0 + Δ·{0, …, 2^b − 1}, Δ = (q_max − q0)/(2^b − 1): HAWQ-V2's
  twos_complement,  ///< Δ·{−h, …, h − 1}, h = 2^(b−1): all codes of a b-bit integer, as in LSQ
  dorefa,   ///< 2^b even levels in [−1, 1], of the weights after dorefa_normalize: DoReFa-Net's, per layer
  lq_nets,  ///< Σ ±v_k over the 2^b sign patterns of a basis v fitted to the weights: LQ-Nets'
};

/// Whether one step serves the whole tensor or each output channel (the last dimension of HWIO and of
/// [In,Out]) has its own.
enum class Granularity : std::uint8_t { layer, channel };

/// How the clip range follows from the weights.
enum class ClipRule : std::uint8_t {
  min_max,  ///< no element is clipped
  mse,  ///< the least ‖Q(w) − w‖² over a grid of shrunken ranges, refined; never worse than min_max
  percentile,  ///< WeightSpec::percentile of the magnitudes; asymmetric: that central share of the weights
  learned,     ///< a trained step (LSQ) that starts from the mse choice
  lsq,         ///< a trained step that starts where LSQ starts it, at 2·mean|w|/√q, q the outermost level
};

std::string_view weight_scheme_name(WeightScheme scheme);
std::string_view granularity_name(Granularity granularity);
std::string_view clip_rule_name(ClipRule rule);
/// The enumerator of that name. Throws UsageError that lists the names there are.
WeightScheme parse_weight_scheme(std::string_view name);
Granularity parse_granularity(std::string_view name);
ClipRule parse_clip_rule(std::string_view name);

/// One weight quantizer. With 1 bit every scheme but asymmetric is ±mean|w| (the MSE optimum, Rastegari et
/// al., XNOR-Net, 2016) whatever the clip rule. dorefa and lq_nets define their levels themselves: the rules
/// that choose a range (min_max, mse, percentile) make no difference to them.
struct WeightSpec {
  int bits = 8;
  WeightScheme scheme = WeightScheme::symmetric;
  Granularity granularity = Granularity::layer;
  ClipRule clip = ClipRule::mse;
  double percentile = 99.9;  ///< of ClipRule::percentile, in (0, 100]
};

/// Without the bits: "symmetric channel mse".
std::string describe(const WeightSpec& spec);
/// Whether the clip rule trains a step.
inline bool has_learned_step(const WeightSpec& spec) {
  return spec.clip == ClipRule::learned || spec.clip == ClipRule::lsq;
}
/// Throws Error naming `op` for what cannot be combined: a learned step with a scheme that has an offset or
/// levels of its own, dorefa per channel, a percentile outside (0, 100], and what check_bits says.
void check_spec(const WeightSpec& spec, std::string_view op);

/// Codes of the quantizer: integers code_min … code_max, each standing for scale · code + offset. `half` is
/// the constant part of the offset in steps (½ for mid_rise, dorefa and one bit, else 0). The codes of
/// lq_nets are sign patterns: bit k is set where +v_k is added.
struct CodeRange {
  int code_min = 0;
  int code_max = 0;
  double half = 0;
};
/// Throws Error for 32 bits, which has no codes.
CodeRange code_range(const WeightSpec& spec);
/// The type codes are held in: i8 where some are negative, else u8.
DType code_type(const WeightSpec& spec);

/// Where the levels of a tensor lie: Q(w) = scale · code + offset. Both are [1] (per layer) or [channels], of
/// the weights' dtype; scale > 0. The offset is 0 (symmetric, twos_complement), scale/2 (mid_rise, dorefa) or
/// q0 (asymmetric). lq_nets has a basis ([1, bits] or [channels, bits]) and neither scale nor offset.
struct WeightGrid {
  Tensor scale;
  Tensor offset;
  Tensor basis = {};
};

/// The grid that the spec's clip rule gives for `w` (f32 or f64, last dimension = output channel; `learned`
/// and `lsq` give their starting points). Throws Error for 32 bits, and for weights that are not finite.
WeightGrid choose_grid(const Tensor& w, const WeightSpec& spec);

struct QuantizedTensor {
  int bits = kFullPrecision;
  Tensor dequantized;  ///< Q(w), the shape and dtype of w
  Tensor codes;        ///< of code_type(spec), the shape of w; undefined at 32 bits
  WeightGrid grid;     ///< undefined tensors at 32 bits
};

/// Q(w) with the grid of choose_grid, or with a given one. Rounding is to nearest, ties to even. At 32 bits
/// `dequantized` is w itself.
QuantizedTensor quantize_weights(const Tensor& w, const WeightSpec& spec);
QuantizedTensor quantize_weights(const Tensor& w, const WeightSpec& spec, const WeightGrid& grid);

/// The levels that codes stand for: quantize_weights(w, spec, grid).dequantized from its codes, to the bit.
/// Throws Error for 32 bits, and for codes of another type than the scheme's.
Tensor dequantize(const Tensor& codes, const WeightSpec& spec, const WeightGrid& grid);

/// ‖Q(w) − w‖₂², accumulated in f64: the perturbation of HAWQ and HAWQ-V2. 0 at 32 bits. DoReFa's levels fill
/// [−1, 1] whatever the weights' scale, which the batch normalisation behind the layer undoes; there it is
/// min_c ‖c·Q(w) − w‖₂² (our choice, since the paper has no such measure).
double perturbation(const Tensor& w, const WeightSpec& spec);
/// ‖a − b‖₂² of two tensors of one shape and dtype, accumulated in f64.
double squared_distance(const Tensor& a, const Tensor& b);

/// Number of different values in each quantization group of `w`, the largest over the groups: at most 2^b
/// after b-bit quantization, which is how a bit width is verified rather than believed.
std::int64_t distinct_levels(const Tensor& w, Granularity granularity);

}  // namespace goshawk
