// What this machine's cores can do at most, measured.
#pragma once

namespace goshawk {

/// Floating-point operations per second of f32 fused multiply-adds on registers, all threads together, in
/// 1e9/s: the best of `runs` runs of a few milliseconds.
double fma_limit_gflops(int runs = 200);

}  // namespace goshawk
