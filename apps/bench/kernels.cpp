#include "apps/bench/kernels.hpp"

#include <benchmark/benchmark.h>
#include <functional>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/kernels/channel.hpp"
#include "core/kernels/conv.hpp"
#include "core/kernels/norm.hpp"
#include "core/random.hpp"

namespace goshawk {
namespace {

constexpr std::int64_t kBatch = 128;

/// A square convolution of ResNet-20 or SqueezeNext, or one that a kernel must not be slow at.
struct ConvCase {
  const char* name;
  std::int64_t size, in, out, kernel, stride, padding;
};
constexpr ConvCase kConvCases[] = {
    {"3x3_3to16_32", 32, 3, 16, 3, 1, 1},      {"3x3_16_32", 32, 16, 16, 3, 1, 1},
    {"3x3_16to32_32_s2", 32, 16, 32, 3, 2, 1}, {"3x3_32_16", 16, 32, 32, 3, 1, 1},
    {"3x3_32to64_16_s2", 16, 32, 64, 3, 2, 1}, {"3x3_64_8", 8, 64, 64, 3, 1, 1},
    {"1x1_64to32_28", 28, 64, 32, 1, 1, 0},
};

/// What each registered benchmark runs; its argument is the place in here.
std::vector<std::function<void(benchmark::State&)>>& bodies() {
  static std::vector<std::function<void(benchmark::State&)>> all;
  return all;
}

void run_body(benchmark::State& state) {
  bodies()[static_cast<std::size_t>(state.range(0))](state);
}

void add(const std::string& name, std::function<void(benchmark::State&)> body) {
  benchmark::RegisterBenchmark(name.c_str(), run_body)
      ->Arg(static_cast<std::int64_t>(bodies().size()))
      ->UseRealTime();
  bodies().push_back(std::move(body));
}

void report(benchmark::State& state, double operations, double limit) {
  const double gflops = 1e-9 * operations;
  state.counters["GFLOP/s"] = benchmark::Counter(gflops, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_limit"] =
      benchmark::Counter(gflops / limit, benchmark::Counter::kIsIterationInvariantRate);
}

template <class F>
void add_conv(const ConvCase& c, const char* direction, bool winograd, double limit, const F& f) {
  const kernels::ConvParams params{c.stride, c.stride, c.padding, c.padding};
  const Shape x_shape{kBatch, c.size, c.size, c.in}, w_shape{c.kernel, c.kernel, c.in, c.out};
  const Shape y_shape = kernels::conv2d_output_shape(x_shape, w_shape, params);
  const double operations = 2.0 * static_cast<double>(y_shape.numel() * c.kernel * c.kernel * c.in);
  const std::string name = fmt::format("conv/{}/{}/{}", c.name, direction, winograd ? "winograd" : "direct");
  add(name, [=](benchmark::State& state) {
    Random random(1);
    const Tensor x = random_normal(x_shape, DType::f32, random),
                 w = random_normal(w_shape, DType::f32, random),
                 y = random_normal(y_shape, DType::f32, random);
    kernels::set_winograd(winograd);
    for (auto _ : state) benchmark::DoNotOptimize(f(x, w, y, params));
    kernels::set_winograd(true);
    report(state, operations, limit);
  });
}

void add_norm(std::int64_t size, std::int64_t channels) {
  const Shape shape{kBatch, size, size, channels};
  const auto add_one = [&](const char* name, int tensors, auto f) {
    add(fmt::format("norm/{}/{}_{}", name, channels, size), [=](benchmark::State& state) {
      Random random(1);
      const Tensor x = random_normal(shape, DType::f32, random), g = random_normal(shape, DType::f32, random),
                   u = random_normal(shape, DType::f32, random);
      const Tensor s = random_normal({channels}, DType::f32, random);
      for (auto _ : state) f(x, g, u, s);
      state.SetBytesProcessed(state.iterations() * tensors * x.bytes());
    });
  };
  // Tensors read and written once each.
  add_one("moments", 1, [](const Tensor& x, auto&, auto&, auto&) {
    benchmark::DoNotOptimize(kernels::channel_moments(x));
  });
  add_one("forward", 2, [](const Tensor& x, auto&, auto&, const Tensor& s) {
    benchmark::DoNotOptimize(kernels::channel_affine(x, s, s, {}, true));
  });
  add_one("backward", 6, [](const Tensor& x, const Tensor& g, const Tensor& u, const Tensor& s) {
    benchmark::DoNotOptimize(kernels::batch_norm_backward(g, x, s, s, s, u, {}));
  });
  add_one("double_backward", 10, [](const Tensor& x, const Tensor& g, const Tensor& u, const Tensor& s) {
    benchmark::DoNotOptimize(
        kernels::batch_norm_double_backward({u, s, s, {}}, {{}, s, s, {}}, g, x, s, s, s, x));
  });
}

}  // namespace

void run_kernel_benchmarks(const std::string& filter, bool json, double limit_gflops) {
  for (const ConvCase& c : kConvCases) {
    for (const bool winograd : {false, true}) {
      if (winograd && (c.kernel != 3 || c.stride != 1 || c.in < 16)) continue;
      add_conv(c, "forward", winograd, limit_gflops,
               [](const Tensor& x, const Tensor& w, const Tensor&, const kernels::ConvParams& p) {
                 return kernels::conv2d(x, w, p);
               });
      add_conv(c, "input_grad", winograd, limit_gflops,
               [](const Tensor& x, const Tensor& w, const Tensor& y, const kernels::ConvParams& p) {
                 return kernels::conv2d_input_grad(y, w, x.shape(), p);
               });
      add_conv(c, "weight_grad", winograd, limit_gflops,
               [](const Tensor& x, const Tensor& w, const Tensor& y, const kernels::ConvParams& p) {
                 return kernels::conv2d_weight_grad(x, y, w.shape(), p);
               });
    }
  }
  for (const auto& [size, channels] : {std::pair{32, 16}, std::pair{16, 32}, std::pair{8, 64}}) {
    add_norm(size, channels);
  }
  std::vector<std::string> arguments{"bench",
                                     json ? "--benchmark_format=json" : "--benchmark_format=console"};
  if (!filter.empty()) arguments.push_back("--benchmark_filter=" + filter);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  int argc = static_cast<int>(argv.size());
  benchmark::Initialize(&argc, argv.data());
  if (benchmark::RunSpecifiedBenchmarks() == 0) {
    throw UsageError(fmt::format("--kernels: no kernel's name matches '{}'", filter));
  }
  benchmark::Shutdown();
}

}  // namespace goshawk
