// What the programs that draw the documents' figures share: the small networks, and where the files go.
#pragma once

#include <filesystem>
#include <fmt/core.h>
#include <functional>
#include <memory>
#include <vector>

#include "apps/support/figure.hpp"
#include "apps/support/program.hpp"
#include "autograd/curvature/hessian_operator.hpp"
#include "autograd/ops.hpp"
#include "core/file.hpp"
#include "datasets/loader.hpp"
#include "datasets/synthetic.hpp"
#include "models/resnet_cifar.hpp"
#include "nn/optimizer.hpp"

namespace goshawk {

/// The data and the untrained two-layer network of the examples: 384 weights, 64 samples, 4 classes.
struct TwoLayers {
  Tensor x, y;
  Vector w;

  explicit TwoLayers(Random& random) {
    x = random_normal({64, 20}, DType::f64, random);
    std::vector<std::int64_t> classes;
    for (int i = 0; i < 64; ++i) classes.push_back(static_cast<std::int64_t>(random.below(4)));
    y = Tensor::from(classes, {64});
    w = {random_normal({20, 16}, DType::f64, random), random_normal({16, 4}, DType::f64, random)};
  }
  static std::vector<Variable> leaves(const Vector& values) {
    return {Variable::leaf(values[0]), Variable::leaf(values[1])};
  }
  Variable loss(const std::vector<Variable>& p, Variable (*activation)(const Variable&)) const {
    return softmax_cross_entropy(matmul(activation(matmul(x, p[0])), p[1]), y);
  }
  /// With tanh. Refers to this object.
  HessianOperator hessian() const {
    const std::vector<Variable> p = leaves(w);
    return {p, {64}, [this, p](std::size_t) { return loss(p, tanh); }};
  }
};

/// A small ResNet that was trained on 512 synthetic pictures, and these pictures in batches of 64.
struct TrainedNet {
  TrainedNet() : net(make_net()) {
    Loader loader(make_synthetic(Split::train, 512), {.batch_size = 64});
    while (const std::optional<Batch> b = loader.next()) {
      images.push_back(avg_pool2d(b->images.to(DType::f64), {2, 2}).value());
      labels.push_back(b->labels);
    }
    Adam adam(net->named_parameters(), {.lr = 0.01});
    for (int step = 0; step < 240; ++step) {
      const std::size_t b = static_cast<std::size_t>(step) % images.size();
      adam.step(grad(softmax_cross_entropy((*net)(images[b]), labels[b]), adam.parameters()));
    }
    net->set_mode(Mode::eval);
  }
  static std::unique_ptr<Module> make_net() {
    Random random(1);
    auto net = std::make_unique<ResNetCifar>(ResNetCifarConfig{.depth = 8, .width = 4}, random);
    net->to(DType::f64);
    return net;
  }

  std::unique_ptr<Module> net;
  std::vector<Tensor> images, labels;
};

/// Writes one figure under a name without its ending.
using WriteFigure = std::function<void(const char* name, const Figure& figure)>;

/// main() of such a program: `draw` writes the figures into the directory that is given as argument, or into
/// `directory`.
inline int draw_figures(const char* program, std::filesystem::path directory, int argc, char** argv,
                        const std::function<void(const WriteFigure& write)>& draw) {
  return run_program(program, [&] {
    if (argc > 1) directory = argv[1];
    std::filesystem::create_directories(directory);
    draw([&](const char* name, const Figure& figure) {
      write_file_atomic(directory / fmt::format("{}.svg", name),
                        to_svg(figure, {.width = 640, .standalone = true}));
    });
    return 0;
  });
}

}  // namespace goshawk
