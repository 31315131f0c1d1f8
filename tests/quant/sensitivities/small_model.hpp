// A small classifier made of modules, with pictures, for tests of sensitivities.
#pragma once

#include <memory>
#include <vector>

#include "core/random.hpp"
#include "nn/layers.hpp"
#include "quant/sensitivities/candidates.hpp"

namespace goshawk::testing {

/// conv 3×3 – bn – relu – conv 3×3 / 2 – bn – relu – global average pool – linear, in eval mode with
/// statistics that are not trivial.
class SmallModel : public Module {
 public:
  static constexpr std::int64_t kClasses = 4;

  SmallModel() {
    register_module("conv1", conv1_);
    register_module("bn1", bn1_);
    register_module("conv2", conv2_);
    register_module("bn2", bn2_);
    register_module("linear", linear_);
    to(DType::f64);
    Random random(11, 0);
    for (const NamedParameter& p : named_parameters()) {
      const bool scale = p.name.starts_with("bn") && p.name.ends_with("weight");
      const Tensor value = scale ? random_uniform(p.variable.shape(), DType::f64, random, 0.5, 1.5)
                                 : random_normal(p.variable.shape(), DType::f64, random);
      std::copy_n(value.raw(), value.bytes(), p.variable.value().raw());
    }
    for (const NamedBuffer& b : named_buffers()) {
      const Tensor value = random_uniform(b.tensor.shape(), DType::f64, random, 0.5, 3);
      std::copy_n(value.raw(), value.bytes(), b.tensor.raw());
    }
    set_mode(Mode::eval);
  }
  Variable forward(const Variable& x) override {
    return linear_(global_avg_pool(relu(bn2_(conv2_(relu(bn1_(conv1_(x))))))));
  }

 private:
  Conv2d conv1_{{.in = 2, .out = 3, .kernel = 3, .padding = 1}};
  BatchNorm2d bn1_{{.channels = 3}};
  Conv2d conv2_{{.in = 3, .out = 4, .kernel = 3, .stride = 2, .padding = 1}};
  BatchNorm2d bn2_{{.channels = 4}};
  Linear linear_{{.in = 4, .out = kClasses}};
};

/// Normal pictures with random labels, in microbatches of these sizes. The pictures do not depend on the cut.
inline SensitivityData small_data(Module& model, const std::vector<std::int64_t>& sizes) {
  Random pictures(12, 1), classes(12, 2);
  std::vector<Tensor> images, labels;
  for (std::int64_t n : sizes) {
    images.push_back(random_normal({n, 6, 6, 2}, DType::f64, pictures));
    std::vector<std::int64_t> y;
    for (std::int64_t i = 0; i < n; ++i) {
      y.push_back(static_cast<std::int64_t>(classes.below(SmallModel::kClasses)));
    }
    labels.push_back(Tensor::from(y, {n}));
  }
  return {model, std::move(images), std::move(labels)};
}

}  // namespace goshawk::testing
