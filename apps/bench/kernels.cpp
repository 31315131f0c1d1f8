#include "apps/bench/kernels.hpp"

#include <benchmark/benchmark.h>
#include <functional>
#include <utility>
#include <vector>

#include "apps/bench/fma_limit.hpp"
#include "core/error.hpp"
#include "core/kernels/channel.hpp"
#include "core/kernels/conv.hpp"
#include "core/kernels/gemm.hpp"
#include "core/kernels/norm.hpp"
#include "core/random.hpp"

namespace goshawk {
namespace {

constexpr std::int64_t kBatch = 128;

/// A convolution of square pictures of ResNet-20 or SqueezeNext, or one that a kernel must not be slow at.
struct ConvCase {
  const char* name;
  std::int64_t size, in, out, kernel_h, kernel_w;
  kernels::ConvParams params;
  std::int64_t batch = kBatch;
};
constexpr ConvCase kConvCases[] = {
    {"3x3_3to16_32", 32, 3, 16, 3, 3, {1, 1, 1, 1}},
    {"3x3_16_32", 32, 16, 16, 3, 3, {1, 1, 1, 1}},
    {"3x3_16to32_32_s2", 32, 16, 32, 3, 3, {2, 2, 1, 1}},
    {"3x3_32_16", 16, 32, 32, 3, 3, {1, 1, 1, 1}},
    {"3x3_32to64_16_s2", 16, 32, 64, 3, 3, {2, 2, 1, 1}},
    {"3x3_64_8", 8, 64, 64, 3, 3, {1, 1, 1, 1}},
    {"1x1_64to32_28", 28, 64, 32, 1, 1, {}},
    // SqueezeNext-23 at 227 x 227.
    {"7x7_3to64_227_s2", 227, 3, 64, 7, 7, {2, 2, 1, 1}, 8},
    {"1x1_32to16_56", 56, 32, 16, 1, 1, {}, 8},
    {"1x1_16to8_56", 56, 16, 8, 1, 1, {}, 8},
    {"1x3_8to16_56", 56, 8, 16, 1, 3, {1, 1, 0, 1}, 8},
    {"3x1_16_56", 56, 16, 16, 3, 1, {1, 1, 1, 0}, 8},
    {"1x1_16to32_56", 56, 16, 32, 1, 1, {}, 8},
    {"3x1_64_14", 14, 64, 64, 3, 1, {1, 1, 1, 0}, 8},
    {"1x1_64to128_14", 14, 64, 128, 1, 1, {}, 8},
    {"depthwise3x3_32_112", 112, 32, 32, 3, 3, {1, 1, 1, 1, 32}, 8},
    {"depthwise3x3_64_112_s2", 112, 64, 64, 3, 3, {2, 2, 1, 1, 64}, 8},
    {"depthwise3x3_512_14", 14, 512, 512, 3, 3, {1, 1, 1, 1, 512}, 8},
    {"groups32_3x3_128_56", 56, 128, 128, 3, 3, {1, 1, 1, 1, 32}, 8},
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

/// Times f() and reports the rate of its operations, by itself and to the limit.
template <class F>
void time_operations(benchmark::State& state, double operations, const F& f) {
  constexpr int kLimitRuns = 20;
  const double before = fma_limit_gflops(kLimitRuns);
  for (auto _ : state) f();
  const double limit = (before + fma_limit_gflops(kLimitRuns)) / 2;
  const double gflops = 1e-9 * operations;
  state.counters["GFLOP/s"] = benchmark::Counter(gflops, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_limit"] =
      benchmark::Counter(gflops / limit, benchmark::Counter::kIsIterationInvariantRate);
}

template <class F>
void add_conv(const ConvCase& c, const char* direction, bool winograd, const F& f) {
  const kernels::ConvParams params = c.params;
  const Shape x_shape{c.batch, c.size, c.size, c.in};
  const Shape w_shape{c.kernel_h, c.kernel_w, c.in / params.groups, c.out};
  const Shape y_shape = kernels::conv2d_output_shape(x_shape, w_shape, params);
  const std::int64_t macs = y_shape.numel() * (w_shape.numel() / c.out);
  const double operations = 2.0 * static_cast<double>(macs);
  const std::string name = fmt::format("conv/{}/{}/{}", c.name, direction, winograd ? "winograd" : "direct");
  add(name, [=](benchmark::State& state) {
    Random random(1);
    const Tensor x = random_normal(x_shape, DType::f32, random),
                 w = random_normal(w_shape, DType::f32, random),
                 y = random_normal(y_shape, DType::f32, random);
    kernels::set_winograd(winograd);
    time_operations(state, operations, [&] { benchmark::DoNotOptimize(f(x, w, y, params)); });
    kernels::set_winograd(true);
  });
}

/// A product of a network's classifier, of its gradient, or one that a kernel must not be slow at.
struct ProductCase {
  const char* name;
  std::int64_t rows, depth, columns;
  bool transpose_a, transpose_b;
};
constexpr ProductCase kProductCases[] = {
    {"128x64x10", 128, 64, 10, false, false},         {"128x128x1000", 128, 128, 1000, false, false},
    {"128x1000x128_nt", 128, 1000, 128, false, true}, {"128x128x1000_tn", 128, 128, 1000, true, false},
    {"512x512x512", 512, 512, 512, false, false},     {"500x3000x500_nt", 500, 3000, 500, false, true},
};

void add_product(const ProductCase& c) {
  add(fmt::format("matmul/{}", c.name), [=](benchmark::State& state) {
    Random random(1);
    const Tensor a =
        random_normal(c.transpose_a ? Shape{c.depth, c.rows} : Shape{c.rows, c.depth}, DType::f32, random);
    const Tensor b = random_normal(c.transpose_b ? Shape{c.columns, c.depth} : Shape{c.depth, c.columns},
                                   DType::f32, random);
    time_operations(state, 2.0 * static_cast<double>(c.rows * c.depth * c.columns),
                    [&] { benchmark::DoNotOptimize(kernels::matmul(a, b, c.transpose_a, c.transpose_b)); });
  });
}

/// Half of the operations of a product suffice, and are counted.
void add_gram(std::int64_t rows, std::int64_t columns) {
  add(fmt::format("gram/{}x{}", rows, columns), [=](benchmark::State& state) {
    Random random(1);
    const Tensor a = random_normal({rows, columns}, DType::f32, random),
                 out = Tensor::empty({rows, rows}, DType::f32);
    time_operations(state, static_cast<double>(rows * rows * columns), [&] {
      kernels::gram_task(a.data<float>(), rows, columns, out.data<float>());
      benchmark::DoNotOptimize(out);
    });
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

void run_kernel_benchmarks(const std::string& filter, bool json) {
  for (const ConvCase& c : kConvCases) {
    for (const bool winograd : {false, true}) {
      const bool square3 = c.kernel_h == 3 && c.kernel_w == 3;
      if (winograd && (!square3 || c.params.stride_h != 1 || c.in < 16 || c.params.groups > 1)) continue;
      add_conv(c, "forward", winograd,
               [](const Tensor& x, const Tensor& w, const Tensor&, const kernels::ConvParams& p) {
                 return kernels::conv2d(x, w, p);
               });
      add_conv(c, "input_grad", winograd,
               [](const Tensor& x, const Tensor& w, const Tensor& y, const kernels::ConvParams& p) {
                 return kernels::conv2d_input_grad(y, w, x.shape(), p);
               });
      add_conv(c, "weight_grad", winograd,
               [](const Tensor& x, const Tensor& w, const Tensor& y, const kernels::ConvParams& p) {
                 return kernels::conv2d_weight_grad(x, y, w.shape(), p);
               });
    }
  }
  for (const auto& [size, channels] : {std::pair{32, 16}, std::pair{16, 32}, std::pair{8, 64}}) {
    add_norm(size, channels);
  }
  for (const ProductCase& c : kProductCases) add_product(c);
  add_gram(64, 576);
  add_gram(256, 288);
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
