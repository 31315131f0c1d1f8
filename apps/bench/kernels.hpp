// Kernels by themselves, under Google Benchmark.
#pragma once

#include <string>

namespace goshawk {

/// Runs the kernel benchmarks whose names match the regular expression `filter` (empty: all) and prints
/// Google Benchmark's table, or its JSON: GFLOP/s of the direct sum's operations (multiplications by the
/// border's zeros count, done or not), and their share of the limit of multiply-adds, measured right before
/// and after each kernel, since a shared machine's limit changes from minute to minute.
void run_kernel_benchmarks(const std::string& filter, bool json);

}  // namespace goshawk
