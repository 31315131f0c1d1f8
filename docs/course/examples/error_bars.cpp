// Two rules for stopping a trace estimator, a hundred times each; and what more pictures do to the trace.
#include <fmt/core.h>

#include "autograd/curvature/hutchinson.hpp"
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

  // The trace of the last layer's Hessian on 64 pictures, estimated a hundred times by each of two rules.
  const SensitivityData few(net, {images[0]}, {labels[0]});
  const HessianOperator h = few.hessian().block(7);
  const double exact = exact_traces(few.pass(), few.sizes()).layers[7].weight.value;
  for (const bool naive : {true, false}) {
    double probes = 0, squares = 0;
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
      const auto moved = [last = 0.0](const HutchinsonState&, std::span<const Estimate> now) mutable {
        return std::abs(now[0].value - std::exchange(last, now[0].value)) > 0.01 * now[0].value;
      };
      HutchinsonOptions options{.seed = seed, .relative_error = naive ? 0 : 0.05, .probes_per_pass = 1};
      if (naive) options.progress = moved;
      const Estimate trace = hutchinson(h, options);
      probes += trace.samples / 100.0;
      squares += std::pow(trace.value / exact - 1, 2) / 100;
    }
    fmt::print("{} {:3.0f} probes, error {:.0f} %\n",
               naive ? "mean moved by < 1 %:" : "standard error < 5 %:", probes, 100 * std::sqrt(squares));
  }

  // The exact trace over more and more pictures.
  const SensitivityData all(net, images, labels);
  const std::vector<double> each = exact_traces(all.pass(), all.sizes()).layers[7].weight_per_image;
  for (const std::size_t n : {32U, 64U, 128U, 256U, 512U}) {
    const Estimate trace = estimate_mean(std::span(each).first(n));
    fmt::print("{:3} pictures: trace {:.2f} ± {:.2f}\n", n, trace.value, trace.standard_error);
  }
}
