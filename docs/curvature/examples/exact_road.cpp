// Every layer's exact Hessian trace, and what rounding its weight to 3 bits costs, from first derivatives.
#include <cmath>
#include <fmt/core.h>

#include "autograd/curvature/exact_traces.hpp"
#include "autograd/curvature/logit_changes.hpp"
#include "autograd/curvature/road.hpp"
#include "models/registry.hpp"
#include "nn/layer_recorder.hpp"

using namespace goshawk;

int main() {
  // An untrained ResNet-20 and 24 random pictures in microbatches of 8; batch norm in eval mode.
  const auto model = make_model("resnet20");
  model->set_mode(Mode::eval);
  Random random(1);
  const Tensor images = random_uniform({24, 32, 32, 3}, DType::f32, random, -0.02, 0.02);
  const Tensor labels = Tensor::from(random.permutation(10), {10});
  const ClassifierPass pass = [&](std::size_t b) {
    const auto begin = static_cast<std::int64_t>(8 * b);
    return record_classifier(*model, rows(images, begin, begin + 8), rows(labels, 0, 8));
  };
  fmt::print("{}\n", choose_road(pass(0)).reason);

  std::vector<WeightChange> changes;
  for (const auto& [name, layer] : weighted_layers(*model)) {
    const Tensor change = layer->weight.value().clone();
    for (float& w : change.span<float>()) w = std::round(w / 0.1F) * 0.1F - w;
    changes.push_back({name, change});
  }
  const ExactTraces traces = exact_traces(pass, {8, 8, 8});
  const LogitChanges costs = logit_changes(pass, {8, 8, 8}, changes);
  for (std::size_t l = 0; l < traces.layers.size(); l += 6) {
    const Estimate& trace = traces.layers[l].weight;
    fmt::print("{:<15} trace {:.4g} ± {:.2g} (pictures); rounding costs {:+.3g} {:+.3g}\n",
               traces.layers[l].name, trace.value, *trace.subset_error, costs.cost(l).first_order,
               costs.cost(l).second_order);
  }
}
