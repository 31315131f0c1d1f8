// All eigenvalues of a trained network's Hessian: a crowd at zero, and a few far away.
#include <fmt/core.h>

#include "autograd/curvature/lanczos.hpp"
#include "autograd/curvature/spectral_density.hpp"
#include "datasets/loader.hpp"
#include "datasets/synthetic.hpp"
#include "models/resnet_cifar.hpp"
#include "nn/optimizer.hpp"
#include "quant/sensitivities/data.hpp"

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

  const SensitivityData data(net, {images[0]}, {labels[0]});
  const HessianOperator h = data.hessian();
  const LanczosResult ends = lanczos(h, {.largest = 20, .smallest = 2, .tolerance = 1e-4});
  for (const Eigenpair& pair : ends.largest) fmt::print("{:.0f} ", pair.value);
  fmt::print("are the largest, {:.2f} the smallest\n", ends.smallest[0].value);

  const SpectralDensity d = spectral_density(h, {.steps = 60});
  const auto count = [&](const char* what, auto inside) {
    const Estimate share = spectral_mean(d.quadratures, [&](double x) { return inside(x) ? 1.0 : 0.0; });
    fmt::print("{} {:4.0f} ± {:.0f}\n", what, share.value * static_cast<double>(h.size()),
               share.standard_error * static_cast<double>(h.size()));
  };
  fmt::print("of {} eigenvalues there are\n", h.size());
  count("below -1  ", [](double x) { return x < -1; });
  count("-1 to 1   ", [](double x) { return std::abs(x) <= 1; });
  count("1 to 10   ", [](double x) { return x > 1 && x <= 10; });
  count("above 10  ", [](double x) { return x > 10; });
}
