// From curvature to bits: what rounding each layer costs, by four methods, and the bits that follow.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include "datasets/loader.hpp"
#include "datasets/synthetic.hpp"
#include "models/resnet_cifar.hpp"
#include "nn/optimizer.hpp"
#include "quant/cost_allocation.hpp"
#include "quant/sensitivities/naive.hpp"
#include "quant/sensitivities/registry.hpp"

using namespace goshawk;

int main() {
  // A ResNet-8 learns 512 pictures of 16 × 16 pixels by heart.
  Random random(1);
  ResNetCifar net({.depth = 8, .width = 4}, random);
  net.to(DType::f64);
  std::vector<Tensor> images, labels;
  Loader loader(make_synthetic(Split::train, 512), {.batch_size = 64});
  while (const std::optional<Batch> b = loader.next()) {
    images.push_back(avg_pool2d(b->images.to(DType::f64), {2, 2}).value());
    labels.push_back(b->labels);
  }
  Adam adam(net.named_parameters(), {.lr = 0.01});
  for (int step = 0; step < 240; ++step) {
    const std::size_t b = static_cast<std::size_t>(step) % images.size();
    adam.step(grad(softmax_cross_entropy(net(images[b]), labels[b]), adam.parameters()));
  }
  net.set_mode(Mode::eval);

  // What 3 bits in layer 3 cost to second order, along both roads.
  const SensitivityData data(net, images, labels);
  const WeightCandidates candidates = weight_candidates(data, {3, 4, 6, 8}, {.clip = ClipRule::min_max});
  SensitivityMeasurement measurement(data, candidates);
  const Vector change{candidates.layers[3].changes[0]};
  fmt::print("½ΔwᵀHΔw: {:.6f} from first derivatives, {:.6f} by double backward\n",
             measurement.measure("exact-quadratic").costs[3][0],
             dot(change, data.hessian().block(3).apply(change)) / 2);

  const double before = data.loss();
  fmt::print("loss {:.3f}; with the weights in a seventh of their bytes:\n", before);
  for (const char* name : {"delta-norm", "hawq", "hawq-v2", "fisher", "exact-quadratic"}) {
    const Costs costs = to_costs(candidates, measurement.measure(name));
    const double budget = full_precision_bytes(costs) / 7;
    const CostAllocation best = allocate(costs, AllocationMethod::exact, {.bytes = budget});
    std::vector<int> bits, choice;
    for (const CostAllocation::Layer& layer : best.layers) {
      bits.push_back(layer.bits);
      choice.push_back(layer.bits == 3 ? 0 : layer.bits / 2 - 1);
    }
    fmt::print("{:<16} {}   costs sum to {:6.3f}, loss + {:.3f}\n", name, fmt::join(bits, " "),
               best.objective, assignment_loss_change(data, candidates, choice, before));
  }
}
