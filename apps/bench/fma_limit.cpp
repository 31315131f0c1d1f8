#include "apps/bench/fma_limit.hpp"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "core/parallel.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "apps/bench/fma_limit.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace goshawk {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

template <std::size_t... i>
HWY_INLINE void step(V (&sums)[sizeof...(i)], V x, V y, std::index_sequence<i...>) {
  ((sums[i] = hn::MulAdd(x, sums[i], y)), ...);
}

/// Operations done by `rounds` rounds of independent chains, enough of them to hide the latency.
double Multiply(std::int64_t rounds, float* out) {
  constexpr std::size_t kChains = 12;
  const D d;
  constexpr auto all = std::make_index_sequence<kChains>();
  V sums[kChains];
  for (V& sum : sums) sum = hn::Set(d, *out);
  const V x = hn::Set(d, 0.5F), y = hn::Set(d, 1.0F);
  for (std::int64_t r = 0; r < rounds; ++r) step(sums, x, y, all);
  V total = hn::Zero(d);
  for (const V& sum : sums) total = hn::Add(total, sum);
  *out = hn::GetLane(total);
  return 2.0 * static_cast<double>(rounds) * static_cast<double>(kChains * hn::Lanes(d));
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk {
namespace {
HWY_EXPORT(Multiply);
}  // namespace

double fma_limit_gflops(int runs) {
  constexpr std::int64_t kRounds = 100'000;  // a fraction of a millisecond; the first runs wake the threads
  const std::int64_t chunks = std::int64_t{8} * num_threads();
  double best = 0;
  for (int run = 0; run < runs; ++run) {
    std::vector<double> operations(static_cast<std::size_t>(chunks));
    const auto start = std::chrono::steady_clock::now();
    parallel_for(chunks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t chunk = begin; chunk < end; ++chunk) {
        float value = 1;
        const double done = HWY_DYNAMIC_DISPATCH(Multiply)(kRounds, &value);
        operations[static_cast<std::size_t>(chunk)] = value > 0 ? done : 0;
      }
    });
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    double total = 0;
    for (double o : operations) total += o;
    best = std::max(best, total / time.count() * 1e-9);
  }
  return best;
}

}  // namespace goshawk
#endif
