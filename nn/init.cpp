#include "nn/init.hpp"

#include <cmath>

#include "core/error.hpp"
#include "nn/layers.hpp"

namespace goshawk {

std::int64_t fan_of(const Tensor& weight, Fan fan) {
  check(weight.ndim() >= 2, "[fan_of] a weight of shape {} has no fan; it needs at least [in, out]",
        weight.shape());
  check(weight.numel() > 0, "[fan_of] a weight of shape {} has no elements, so no fan", weight.shape());
  return weight.numel() / weight.dim(fan == Fan::in ? -1 : -2);
}

void kaiming_normal(const Variable& weight, Random& random, const KaimingOptions& options) {
  const double deviation = options.gain / std::sqrt(static_cast<double>(fan_of(weight.value(), options.fan)));
  dispatch_floating(weight.dtype(), "kaiming_normal", [&]<class T>() {
    for (T& element : weight.value().span<T>()) element = static_cast<T>(deviation * random.normal());
  });
}

void kaiming_uniform(const Variable& weight, Random& random, const KaimingOptions& options) {
  const double bound = options.gain * std::sqrt(3 / static_cast<double>(fan_of(weight.value(), options.fan)));
  weight.value().copy_from(random_uniform(weight.shape(), weight.dtype(), random, -bound, bound));
}

void pytorch_default_init(WeightedLayer& layer, Random& random) {
  const double bound = 1 / std::sqrt(static_cast<double>(fan_of(layer.weight.value(), Fan::in)));
  for (const Variable& parameter : layer.parameters()) {
    parameter.value().copy_from(random_uniform(parameter.shape(), parameter.dtype(), random, -bound, bound));
  }
}

void pytorch_default_init(Module& model, Random& random) {
  for (const auto& [name, layer] : weighted_layers(model)) pytorch_default_init(*layer, random);
}

}  // namespace goshawk
