// A weight quantizer of one's own, with levels that are powers of two, so that a product is a shift: it is
// trained through, its bits are chosen by what they cost, and the result is packed.
#include <cmath>
#include <filesystem>

#include "autograd/grad.hpp"
#include "autograd/gradcheck.hpp"
#include "nn/init.hpp"
#include "nn/optimizer.hpp"
#include "quant/cost_allocation.hpp"
#include "quant/packed_model.hpp"
#include "quant/qat.hpp"
#include "quant/sensitivities/registry.hpp"

using namespace goshawk;

namespace {

// ±2^e for the 2^(bits−1) exponents below that of the largest weight: 2^bits levels, one scale, no zero.
Tensor powers_of_two(const Tensor& w, int bits) {
  Tensor q = Tensor::empty_like(w);
  dispatch_floating(w.dtype(), "powers_of_two", [&]<class T>() {
    T largest = 0;
    for (const T x : w.span<T>()) largest = std::max(largest, std::abs(x));
    const T top = std::round(std::log2(std::max(largest, T(1e-30))));
    const T bottom = top - static_cast<T>((1 << (bits - 1)) - 1);
    for (std::int64_t i = 0; i < w.numel(); ++i) {
      const T x = w.data<T>()[i];
      const T e = std::round(std::log2(std::max(std::abs(x), T(1e-30))));
      q.data<T>()[i] = std::copysign(std::exp2(std::clamp(e, bottom, top)), x);
    }
  });
  return q;
}

// Rounding has no useful derivative: the op says that it borrows that of x ↦ x (straight through).
const Op& kOp = register_op("powers_of_two", OpKind::surrogate, Linearity::linear);
Variable quantize(const Variable& w, int bits) {
  return record(
      kOp, {w}, powers_of_two(w.value(), bits), [](const Backward& d) { return std::vector{d.grad()}; },
      symmetric);
}

}  // namespace

int main() {
  Random random(/*seed=*/1);
  const GradcheckResult derivative = surrogatecheck(
      [](const std::vector<Variable>& v) { return quantize(v[0], 3); },
      [](const std::vector<Variable>& v) { return v[0]; }, {random_normal({4, 5}, DType::f64, random)});
  fmt::print("derivative: {}\n", derivative.ok ? "that of x" : derivative.message);

  // Noise in three colours, each class with a little more of one.
  const Tensor images = random_normal({96, 12, 12, 3}, DType::f32, random);
  const Tensor labels = Tensor::zeros({96}, DType::i64);
  for (std::int64_t i = 0; i < 96 * 12 * 12; ++i) {
    const std::int64_t label = i / (12 * 12) % 3;
    labels.data<std::int64_t>()[i / (12 * 12)] = label;
    images.data<float>()[3 * i + label] += 0.1F;
  }
  Sequential net;
  net.add<Conv2d>({.in = 3, .out = 16, .kernel = 3, .stride = 2, .padding = 1}, "conv");
  net.add<ReLU>();
  net.add<GlobalAvgPool>();
  net.add<Linear>({.in = 16, .out = 3}, "linear");
  pytorch_default_init(net, random);
  Sgd sgd(net.named_parameters(), {.lr = 0.2, .momentum = 0.9});
  const auto train = [&](int steps) {
    for (int step = 0; step < steps; ++step)
      sgd.step(grad(softmax_cross_entropy(net(images), labels), sgd.parameters()));
  };
  train(100);
  net.set_mode(Mode::eval);

  const SensitivityData data(net, {images}, {labels});
  fmt::print("full precision: loss {:.3f}\n", data.loss());
  const WeightCandidates candidates = weight_candidates_from(data, {2, 3, 4}, powers_of_two);
  SensitivityMeasurement measurement(data, candidates);
  const Costs costs = to_costs(candidates, measurement.measure("exact-quadratic"));
  const CostAllocation bits =
      allocate(costs, AllocationMethod::exact, {.bytes = full_precision_bytes(costs) / 10});

  const auto layers = weighted_layers(net);
  for (std::size_t l = 0; l < layers.size(); ++l)
    layers[l].second->weight_transform = [b = bits.layers[l].bits](const Variable& w) {
      return quantize(w, b);
    };
  const double before = data.loss();
  for (const auto& layer : bits.layers) fmt::print("  {}: {} bits\n", layer.name, layer.bits);
  train(50);
  const double after = data.loss();
  fmt::print("quantized: loss {:.3f}, after training through the quantizer {:.3f}\n", before, after);

  // Codes of b bits, and a table of the values they stand for; then back, over other weights.
  RoundedWeights rounded;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const auto& [name, pointer] = layers[l];
    WeightedLayer& layer = *pointer;
    const int b = bits.layers[l].bits;
    layer.weight.value().copy_from(powers_of_two(layer.weight.value(), b));
    layer.weight_transform = nullptr;
    rounded.bits[name] = b;
  }
  const std::string path = std::filesystem::temp_directory_path() / "goshawk-powers-of-two.safetensors";
  const QuantizedModel plain(net, uniform_assignment(layer_list(net), kFullPrecision, kFullPrecision));
  const PackedSize size = write_packed_model(path, plain, {}, rounded);
  pytorch_default_init(net, random);
  load_packed_model(path, net);
  std::filesystem::remove(path);
  fmt::print("packed: {} bytes of codes and {} of levels; read back: loss {:.3f}\n", size.codes, size.scales,
             data.loss());
  return derivative.ok && after < before && data.loss() == after ? 0 : 1;
}
