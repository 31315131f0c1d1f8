// Kernels by themselves, under Google Benchmark.
#pragma once

#include <string>

namespace goshawk {

/// Runs the kernel benchmarks whose names match the regular expression `filter` (empty: all) and prints
/// Google Benchmark's table, or its JSON: GFLOP/s of the direct sum's operations, and their share of
/// `limit_gflops`.
void run_kernel_benchmarks(const std::string& filter, bool json, double limit_gflops);

}  // namespace goshawk
